"""The formats in which a dataset can be written: one module per format."""
