"""How long the device of a worker waits for images to be encoded and synced between two batches."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from imgdiffd.fleet.wire import Done
from imgdiffd.stages.images import Images
from imgdiffd.worker.answers import Answers
from imgdiffd.worker.engine import ENCODERS
from tests.benchmarks.measuring import Ratio


def ratios(folder: Path, *, picture_px: int, paint_s: float, batches: int = 6) -> Iterator[Ratio]:
    """A pair a batch, painted elsewhere in `paint_s`: the device's idle time, its images written beside or between."""
    pair = [_image(picture_px, seed) for seed in (0, 1)]
    with ThreadPoolExecutor(ENCODERS) as encoder:
        beside = _idle_seconds(Images(folder, torch.device("cpu"), encoder=encoder), pair, paint_s, batches)
    between = _idle_seconds(Images(folder, torch.device("cpu")), pair, paint_s, batches)
    what = f"idle between batches, a pair of {picture_px} px written beside / before"
    yield Ratio(what, beside / between, target=0.5)


def _image(px: int, seed: int) -> Tensor:
    """Smooth with a little noise, so that it compresses about as a painted image does."""
    noise = torch.Generator().manual_seed(seed)
    coarse = functional.interpolate(torch.rand(1, 3, 8, 8, generator=noise), (px, px), mode="bicubic")[0]
    return ((0.97 * coarse + 0.03 * torch.rand(3, px, px, generator=noise)).clamp(0, 1) * 255).to(torch.uint8)


def _idle_seconds(images: Images, pair: list[Tensor], paint_s: float, batches: int) -> float:
    """From the end of each painting to the moment at which the next could begin, summed up."""
    answers, idle_s = Answers(lambda _: None), 0.0
    for batch in range(batches):
        time.sleep(paint_s)  # the device is at work, and no thread of this process
        ended_s = time.perf_counter()
        images.write({f"{batch}-{side}.png": image for side, image in enumerate(pair)})
        answers.put(Done(batch, (), paint_s), images.take_unwritten())
        idle_s += time.perf_counter() - ended_s
    answers.close()
    return idle_s
