"""imgdiffd: caption files in, an image-difference dataset out."""

__version__ = "0.1.0"
