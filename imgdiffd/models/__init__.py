"""The models behind one interface each, one role a file."""
