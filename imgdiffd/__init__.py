"""imgdiffd: caption files in, an image-difference dataset out."""

from importlib.metadata import version

__version__ = version("imgdiffd")
