"""The miniature bundle: a procedural world and small models of the real classes trained on it; see `make mini`."""
