"""Reads datasets that were published or exported elsewhere into a database."""
