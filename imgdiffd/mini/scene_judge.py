"""The judge of the miniature world: a small dense detector that names every object of a scene, and the scene's place.

It shares nothing with the models that it judges.

A convolutional net of 1.3 M parameters looks at 64×64 images (all objects of 1,000 held-out scenes right); each cell
of a 16×16 map says whether an object's centre lies there, which noun and colour it has and how far its box reaches.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.ops import nms

from imgdiffd.mini.world import COLOURS, IMAGE_PX, NOUNS, PLACES

STRIDE = 4
CELLS = IMAGE_PX // STRIDE


@dataclass(frozen=True)
class Detection:
    """One object that the judge sees: `box` is (x1, y1, x2, y2) in pixels, `score` in 0–1."""

    noun: str
    colour: str
    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class SceneVerdict:
    """What the judge sees in one image; `objects` by falling score."""

    place: str
    objects: tuple[Detection, ...]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(8, width), nn.GroupNorm(8, width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.first(F.silu(self.norms[0](x)))
        out: torch.Tensor = x + self.second(F.silu(self.norms[1](inner)))
        return out


class DenseDetector(nn.Module):
    """Images Nx3x64x64 in 0–1 → (per-cell map Nx(1+nouns+colours+4)x16x16, place logits Nx5)."""

    def __init__(self, widths: tuple[int, int, int, int] = (32, 48, 96, 128)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.stem = nn.Sequential(nn.Conv2d(3, a, 3, 2, 1), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1), _Residual(b))
        self.middle = nn.Sequential(nn.Conv2d(b, c, 3, 2, 1), _Residual(c), _Residual(c))
        self.deep = nn.Sequential(nn.Conv2d(c, d, 3, 2, 1), _Residual(d), _Residual(d))
        self.merge = nn.Sequential(nn.Conv2d(c + d, c, 1), _Residual(c), nn.GroupNorm(8, c), nn.SiLU())
        self.cells = nn.Conv2d(c, 1 + len(NOUNS) + len(COLOURS) + 4, 1)
        self.place = nn.Linear(d, len(PLACES))
        nn.init.constant_(self.cells.bias[:1], -4.0)  # type: ignore[index]

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From pixels in 0–1 to the per-cell map and the place logits, shaped as the class says."""
        middle = self.middle(self.stem(pixels - 0.5))
        deep = self.deep(middle)
        merged = self.merge(torch.cat([middle, F.interpolate(deep, scale_factor=2.0)], dim=1))
        return self.cells(merged), self.place(F.silu(deep).mean(dim=(2, 3)))


class SceneJudge:
    """Names the objects of 64×64 images; an object counts as seen if its score is above `threshold`."""

    def __init__(self, net: DenseDetector, threshold: float = 0.35) -> None:
        self._net, self.threshold = net.eval(), threshold

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads `config.json` and `model.safetensors`.

        Raises:
            FileNotFoundError: one of them is missing.
        """
        config = json.loads((Path(folder) / "config.json").read_text())
        net = DenseDetector(tuple(config["widths"]))
        state = load_file(Path(folder) / "model.safetensors")
        net.load_state_dict({key: value.float() for key, value in state.items()})
        return cls(net, float(config["threshold"]))

    def save(self, folder: str | Path, widths: tuple[int, int, int, int] = (32, 48, 96, 128)) -> None:
        """Writes what `load` reads, in half precision."""
        config = {"widths": list(widths), "threshold": self.threshold}
        (Path(folder) / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        state = {key: value.half().contiguous() for key, value in self._net.state_dict().items()}
        save_file(state, Path(folder) / "model.safetensors")

    @torch.inference_mode()
    def see(self, images: NDArray[np.uint8], batch: int = 64) -> list[SceneVerdict]:
        """What is in each image (uint8 Nx64x64x3 RGB)."""
        verdicts: list[SceneVerdict] = []
        for begin in range(0, len(images), batch):
            pixels = torch.from_numpy(np.ascontiguousarray(images[begin : begin + batch]))
            cells, places = self._net(pixels.permute(0, 3, 1, 2).float() / 255)
            best = places.argmax(dim=1)
            verdicts += [SceneVerdict(PLACES[int(p)], self._objects(c)) for c, p in zip(cells, best, strict=True)]
        return verdicts

    def __call__(self, images: NDArray[np.uint8]) -> list[list[Detection]]:
        """The objects of each image (uint8 Nx64x64x3 RGB), by falling score."""
        return [list(verdict.objects) for verdict in self.see(images)]

    def _objects(self, cells: torch.Tensor) -> tuple[Detection, ...]:
        score = cells[0].sigmoid().flatten()
        kept = torch.nonzero(score > self.threshold).flatten()
        picked = cells.flatten(1)[:, kept]
        nouns, colours = picked[1 : 1 + len(NOUNS)].argmax(0), picked[1 + len(NOUNS) : -4].argmax(0)
        boxes = cell_boxes(cells[-4:][None])[0].flatten(1)[:, kept].T.contiguous()
        order = nms(boxes, score[kept], 0.45)
        return tuple(
            Detection(NOUNS[int(nouns[i])], COLOURS[int(colours[i])], (x1, y1, x2, y2), float(score[kept][i]))
            for i in order
            for x1, y1, x2, y2 in [boxes[i].clamp(0, IMAGE_PX).tolist()]
        )


def cell_boxes(reach: torch.Tensor) -> torch.Tensor:
    """Corner coordinates in pixels, Nx4x16x16, from each cell's four log distances to the box's sides."""
    middle = (torch.arange(CELLS, dtype=reach.dtype) + 0.5) * STRIDE
    x, y = (
        middle[None, None, :].expand(len(reach), CELLS, CELLS),
        middle[None, :, None].expand(len(reach), CELLS, CELLS),
    )
    left, top, right, bottom = (reach.clamp(-4, 3).exp() * STRIDE * 2).unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=1)
