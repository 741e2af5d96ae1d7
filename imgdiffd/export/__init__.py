"""What people take home: one format a file."""
