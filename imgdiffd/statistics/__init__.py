"""Describes a dataset by its words, images and scores (paper, 5.2)."""
