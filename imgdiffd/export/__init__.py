"""Writes the finished dataset: one module per format."""
