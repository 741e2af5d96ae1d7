"""Stands in for OpenCV where it is not installed: what ultralytics does to an image of the right size, and no more.

OpenCV's wheel alone has 61 MB, nearly all that may travel to a borrowed GPU. `day.sh` installs this file as `cv2`.
"""

from typing import Any

import numpy as np
from PIL import Image

__version__ = "0.0.0"
BORDER_CONSTANT = INTER_LINEAR = INTER_AREA = INTER_CUBIC = INTER_NEAREST = 0


def setNumThreads(count: int) -> None:
    """Does nothing: there are no threads."""


def copyMakeBorder(image: Any, top: int, bottom: int, left: int, right: int, kind: int, value: Any = 0) -> Any:
    """`image` with a border of one brightness."""
    if not any((top, bottom, left, right)):
        return image
    pads = ((top, bottom), (left, right)) + ((0, 0),) * (image.ndim - 2)
    return np.pad(image, pads, constant_values=value[0] if isinstance(value, (tuple, list)) else value)


def resize(image: Any, size: tuple[int, int], interpolation: int = 0, **_: Any) -> Any:
    """`image` at `size` (width, height), bilinear whatever is asked for."""
    if tuple(size) == image.shape[1::-1]:
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def __getattr__(name: str) -> Any:
    """A zero for a constant; for a function, one that raises NotImplementedError when it is called."""
    if name.startswith("__"):
        raise AttributeError(name)
    if name[0].isupper():
        return 0

    def missing(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"cv2.{name}: OpenCV is not installed; install it, or do without this call")

    return missing
