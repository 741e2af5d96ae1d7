"""Bundles: which model plays which role, and whether a profile can run with them."""
