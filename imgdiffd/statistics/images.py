"""Finds images that nearly equal others, by a hash of 64 bits each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from imgdiffd.statistics.report import ImageRepeats

NEAR_BITS = 4  # two images whose hashes differ in at most so many of 64 bits are nearly equal
_SIDE = 8
Hashes = tuple[int, int]


def difference_hash(path: Path) -> int:
    """64 bits: of 8 × 9 gray cells of the image, whether each is lighter than its right neighbour (dHash).

    Raises OSError where it cannot be read.
    """
    with Image.open(path) as image:
        image.draft("L", (8 * _SIDE, 8 * _SIDE))  # a JPEG is decoded at an eighth of its size
        cells = np.asarray(image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")


def image_repeats(pairs: Sequence[tuple[Path, Path]]) -> ImageRepeats:
    """How many of these pairs have another one among them whose two images are nearly the same, in either order."""
    with ThreadPoolExecutor() as pool:
        hashed = [found for found in pool.map(_hashes, pairs) if found is not None]
    bits = np.array(hashed, dtype=np.uint64).reshape(-1, 2)
    near = 0
    for row, pair in enumerate(bits):
        straight = np.bitwise_count(bits ^ pair) <= NEAR_BITS
        crossed = np.bitwise_count(bits ^ pair[::-1]) <= NEAR_BITS
        alike = straight.all(axis=1) | crossed.all(axis=1)
        alike[row] = False
        near += bool(alike.any())
    return ImageRepeats(compared=len(hashed), near=near, unreadable=len(pairs) - len(hashed))


def _hashes(paths: tuple[Path, Path]) -> Hashes | None:
    try:
        return difference_hash(paths[0]), difference_hash(paths[1])
    except (OSError, Image.DecompressionBombError):
        return None
