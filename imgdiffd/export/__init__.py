"""Datasets out of finished samples: one format a file. None of them knows SQL; they are handed rows."""
