"""The files of the image folder: their names, which are still wanted, and which may be deleted."""
