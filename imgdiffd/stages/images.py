"""The images that stages work on: read from and written to the image folder, the recent ones kept on the device."""

import io
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgdiffd.errors import StageError, reason_of
from imgdiffd.images.files import inside, write_whole

KEPT_IMAGES = 256
KEPT_BYTES = 512 * 1024 * 1024


class Images:
    """Images are uint8 tensors [3, H, W], RGB, on `device`; callers must not write into them.

    At most `kept_images` and `kept_bytes` of the most recently used stay on the device, so that an item's next stage
    on the same device reads no file. With an `encoder`, `write` only begins, and `take_unwritten` has the rest.
    """

    def __init__(
        self,
        root: Path,
        device: torch.device,
        *,
        kept_images: int = KEPT_IMAGES,
        kept_bytes: int = KEPT_BYTES,
        encoder: Executor | None = None,
    ) -> None:
        self._root = root
        self._device = device
        self._kept_images = kept_images
        self._kept_bytes = kept_bytes
        self._encoder = encoder
        self._unwritten: dict[str, Future[bytes]] = {}
        self._recent: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def read(self, path: str) -> Tensor:
        """The image at `path`, relative to the folder. Raises StageError where it is missing, damaged or outside."""
        image = self._recent.get(path)
        if image is None:
            image = self._load(path)
            self._keep(path, image)
        self._recent.move_to_end(path)
        return image

    def read_pair(self, image1: str, image2: str) -> tuple[Tensor, Tensor]:
        """Both images of a pair. Also raises StageError where their sizes differ: a box must mean the same in both."""
        first, second = self.read(image1), self.read(image2)
        if first.shape != second.shape:
            sizes = " and ".join(f"{p.shape[2]}x{p.shape[1]}" for p in (first, second))
            raise StageError(f"{image1} and {image2} are {sizes} pixels", hint="delete both and retry the item")
        return first, second

    def write(self, images: Mapping[str, Tensor], *, keep: bool = True) -> None:
        """Write PNGs, by path; `keep` them at hand if a later stage reads them.

        Without an encoder they are whole and durable on return. Raises OSError, or ValueError where a path lies outside
        the folder.
        """
        pixels = {path: image.permute(1, 2, 0).contiguous().cpu().numpy() for path, image in images.items()}
        if self._encoder is None:
            write_whole(self._root, {path: _png(each) for path, each in pixels.items()})
        else:
            self._unwritten |= {path: self._encoder.submit(_png, each) for path, each in pixels.items()}
        for path, image in images.items() if keep else ():
            self._keep(path, image)

    def take_unwritten(self) -> Callable[[], None]:
        """What makes the images written since the last call durable, in one go and in any thread, as `write` does."""
        begun, self._unwritten = self._unwritten, {}
        return lambda: write_whole(self._root, {path: each.result() for path, each in begun.items()}) if begun else None

    def forget(self) -> None:
        """Keep nothing: every image's memory is given back."""
        self._recent.clear()
        self._bytes = 0

    def _load(self, path: str) -> Tensor:
        try:
            with Image.open(inside(self._root, path)) as image:
                array = np.array(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise StageError(f"image {path}: {reason_of(error)}", hint="retry the item from its beginning") from error
        return torch.from_numpy(array).permute(2, 0, 1).contiguous().to(self._device)

    def _keep(self, path: str, image: Tensor) -> None:
        old = self._recent.pop(path, None)
        self._bytes += image.nbytes - (old.nbytes if old is not None else 0)
        self._recent[path] = image
        while len(self._recent) > 1 and (len(self._recent) > self._kept_images or self._bytes > self._kept_bytes):
            _, dropped = self._recent.popitem(last=False)
            self._bytes -= dropped.nbytes


def _png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=4)
    return data.getvalue()
