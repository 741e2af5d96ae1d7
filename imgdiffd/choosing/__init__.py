"""Choosing thresholds: every stored score in columns, and what any profile would make of them."""
