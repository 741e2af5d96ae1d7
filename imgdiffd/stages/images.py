"""The pictures that stages work on: read from the picture folder, written to it, the recent ones kept on the device.

It owns the cache and the PNG format; it does not know what is in a picture or which row names it.
"""

import io
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgdiffd.errors import StageError
from imgdiffd.images.files import inside, write_whole

KEPT_PICTURES = 256
KEPT_BYTES = 512 * 1024 * 1024


class Pictures:
    """Pictures are uint8 tensors [3, H, W], RGB, on `device`; whoever gets one must not write into it.

    At most `kept_pictures` and `kept_bytes` of the most recently used stay on the device, so that an item's next stage
    on the same device reads no file.
    """

    def __init__(
        self, root: Path, device: torch.device, *, kept_pictures: int = KEPT_PICTURES, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._root = root
        self._device = device
        self._kept_pictures = kept_pictures
        self._kept_bytes = kept_bytes
        self._recent: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def read(self, path: str) -> Tensor:
        """The picture at `path`, relative to the folder. Raises StageError where it is missing, damaged or outside."""
        picture = self._recent.get(path)
        if picture is None:
            picture = self._load(path)
            self._keep(path, picture)
        self._recent.move_to_end(path)
        return picture

    def read_pair(self, image1: str, image2: str) -> tuple[Tensor, Tensor]:
        """Both pictures of a pair. Raises StageError also where their sizes differ: a box means the same in both."""
        picture1, picture2 = self.read(image1), self.read(image2)
        if picture1.shape != picture2.shape:
            sizes = " and ".join(f"{p.shape[2]}x{p.shape[1]}" for p in (picture1, picture2))
            raise StageError(f"{image1} and {image2} are {sizes} pixels", hint="delete both and retry the item")
        return picture1, picture2

    def write(self, pictures: Mapping[str, Tensor], *, keep: bool = True) -> None:
        """Write PNGs, by path, that are whole and durable on return; `keep` them at hand if a later stage reads them.

        Raises OSError, or ValueError where a path lies outside the folder.
        """
        write_whole(self._root, {path: _png(picture) for path, picture in pictures.items()})
        for path, picture in pictures.items() if keep else ():
            self._keep(path, picture)

    def forget(self) -> None:
        """Keep nothing: every picture's memory is given back."""
        self._recent.clear()
        self._bytes = 0

    def _load(self, path: str) -> Tensor:
        try:
            with Image.open(inside(self._root, path)) as image:
                array = np.array(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise StageError(f"picture {path}: {error}", hint="retry the item from its beginning") from error
        return torch.from_numpy(array).permute(2, 0, 1).contiguous().to(self._device)

    def _keep(self, path: str, picture: Tensor) -> None:
        old = self._recent.pop(path, None)
        self._bytes += picture.nbytes - (old.nbytes if old is not None else 0)
        self._recent[path] = picture
        while len(self._recent) > 1 and (len(self._recent) > self._kept_pictures or self._bytes > self._kept_bytes):
            _, dropped = self._recent.popitem(last=False)
            self._bytes -= dropped.nbytes


def _png(picture: Tensor) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy()).save(data, "PNG", compress_level=4)
    return data.getvalue()
