"""The cached training scenes, their copies decoded by the painter's VAE, and augmentations towards painted images."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torchvision.ops import roi_align

from imgdiffd import durable
from imgdiffd.mini import shapes, training, world
from imgdiffd.mini.world import COLOURS, HELD_OUT_SEED, IMAGE_PX, NOUNS, PLACES, caption_of, draw_scene

MOST_OBJECTS = 3
COUNT = 30_000


@dataclass(frozen=True)
class Scenes:
    """N scenes. `images` uint8 Nx64x64x3 RGB, `labels` uint8 Nx64x64 (0 ground, else the object's number), `nouns` and
    `colours` Nx3 (-1: no object), `boxes` Nx3x4 in pixels, `places` N; `decoded`: the first scenes after the VAE.
    The first `painted` scenes are the painter's own.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    nouns: NDArray[np.int64]
    colours: NDArray[np.int64]
    boxes: NDArray[np.float32]
    places: NDArray[np.int64]
    decoded: NDArray[np.uint8] | None = None
    painted: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def caption(self, index: int) -> str:
        """The caption of scene `index`."""
        return caption_of([self.name(index, slot) for slot in range(self.count(index))], PLACES[self.places[index]])

    def count(self, index: int) -> int:
        """How many objects scene `index` has."""
        return int((self.nouns[index] >= 0).sum())

    def name(self, index: int, slot: int) -> tuple[str, str]:
        """The (noun, colour) of object `slot` of scene `index`."""
        return NOUNS[self.nouns[index, slot]], COLOURS[self.colours[index, slot]]

    def choose(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draws scenes for a batch: half have a copy by the VAE, a quarter is painted, where such scenes exist."""
        chosen = rng.integers(len(self), size=count)
        if self.decoded is not None:
            chosen = np.where(rng.random(count) < 0.5, chosen % len(self.decoded), chosen)
        if self.painted:
            chosen = np.where(rng.random(count) < 0.25, chosen % self.painted, chosen)
        return chosen

    def pixels(self, rng: np.random.Generator, chosen: NDArray[np.int64]) -> torch.Tensor:
        """The chosen scenes as Nx3x64x64 in 0–1; of those with a copy by the VAE, three in four come as that."""
        images = self.images[chosen]
        if self.decoded is not None:
            swap = (chosen < len(self.decoded)) & ((rng.random(len(chosen)) < 0.75) | (chosen < self.painted))
            images = np.where(
                swap[:, None, None, None], self.decoded[np.minimum(chosen, len(self.decoded) - 1)], images
            )
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def region_name(noun: str, colour: str) -> str:
    """How an object is described: "an orange fish"."""
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {noun}"


def ground_name(place: str) -> str:
    """How a region without an object is described: "the grass"."""
    return f"the {place}"


def drawn(count: int, *, seed: int) -> Scenes:
    """Draws `count` scenes, one generator seeded by (seed, number) each."""
    images = np.zeros((count, IMAGE_PX, IMAGE_PX, 3), np.uint8)
    labels = np.zeros((count, IMAGE_PX, IMAGE_PX), np.uint8)
    nouns, colours = np.full((2, count, MOST_OBJECTS), -1, np.int64)
    boxes = np.zeros((count, MOST_OBJECTS, 4), np.float32)
    places = np.zeros(count, np.int64)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        scene = draw_scene(rng, count=None if rng.random() > 0.03 else 0, masks=True)
        images[number], places[number] = scene.image, PLACES.index(scene.place)
        for slot, each in enumerate(scene.objects):
            nouns[number, slot], colours[number, slot] = NOUNS.index(each.noun), COLOURS.index(each.colour)
            boxes[number, slot] = each.box
            labels[number][each.mask] = slot + 1
    return Scenes(images, labels, nouns, colours, boxes, places)


def held_out(count: int = 1000) -> Scenes:
    """Scenes that no model is trained on."""
    return drawn(count, seed=HELD_OUT_SEED)


def cache_path(count: int = COUNT) -> Path:
    """Where the training scenes of this version of the world are cached."""
    source = b"".join(Path(str(module.__file__)).read_bytes() for module in (world, shapes))
    return training.BUILD / f"scenes-{hashlib.sha256(source).hexdigest()[:12]}-{count}.npz"


def decoded_path(count: int = COUNT) -> Path:
    """Where the VAE's copies of the first training scenes are cached."""
    return cache_path(count).with_suffix(".decoded.npy")


def painted_path(count: int = COUNT) -> Path:
    """Where scenes by the painter are cached, with what the judge saw in them."""
    return cache_path(count).with_suffix(".painted.npz")


def cached(count: int = COUNT) -> Scenes:
    """The training scenes, drawn once per version of the world into `build/mini/`, with what VAE and painter made."""
    path = cache_path(count)
    if not path.exists():
        durable.make_folder(path.parent)
        fields = {key: value for key, value in vars(drawn(count, seed=1)).items() if value is not None}
        durable.write({path: lambda file: np.savez(file, **fields)})
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    decoded, painted = decoded_path(count), painted_path(count)
    drawn_ones = Scenes(**arrays, decoded=np.load(decoded) if decoded.exists() else None)
    if not painted.exists():
        return drawn_ones
    with np.load(painted) as stored:
        return led_by(Scenes(**{key: stored[key] for key in stored.files}), drawn_ones)


def led_by(painted: Scenes, others: Scenes) -> Scenes:
    """`painted` and `others` together, the painted ones first."""
    fields = ("images", "labels", "nouns", "colours", "boxes", "places")
    joined = {field: np.concatenate([getattr(painted, field), getattr(others, field)]) for field in fields}
    decoded = None if others.decoded is None else np.concatenate([painted.images, others.decoded])
    return Scenes(**joined, decoded=decoded, painted=len(painted))


def roughened(rng: np.random.Generator, pixels: torch.Tensor) -> torch.Tensor:
    """Images (Nx3xHxW in 0–1) with a little blur, light and grain, drawn for each."""
    n = len(pixels)

    def amount(high: float, channels: int = 1) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(0, high, (n, channels, 1, 1)).astype(np.float32))

    soft = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    rough = torch.lerp(pixels, soft, amount(0.7) * (amount(1.0) < 0.6))
    rough = rough * (0.94 + amount(0.12)) * (0.98 + amount(0.04, 3)) + amount(0.06) - 0.03
    grain = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32))
    return (rough + grain * amount(0.03)).clamp(0, 1)


def jittered(rng: np.random.Generator, boxes: NDArray[np.float32], shift: float, grow_px: float) -> NDArray[np.float32]:
    """Boxes whose sides moved by up to `shift` of their length and grew by up to `grow_px`, within the image."""
    sides = np.concatenate([boxes[:, 2:] - boxes[:, :2]] * 2, axis=1)
    moved = boxes + rng.uniform(-shift, shift, boxes.shape) * sides
    moved += rng.uniform(0, grow_px, (len(boxes), 1)) * np.array([-1, -1, 1, 1])
    return np.asarray(np.clip(moved, 0, IMAGE_PX), dtype=np.float32)


def empty_boxes(rng: np.random.Generator, scenes: Scenes, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """One box per scene that holds (almost) only ground; NaN where thirty draws found none."""
    found = np.full((len(chosen), 4), np.nan, np.float32)
    for row, index in enumerate(chosen):
        for _ in range(30):
            size = rng.uniform(9, 26, 2)
            x, y = rng.uniform(0, IMAGE_PX - size)
            box = np.array([x, y, x + size[0], y + size[1]])
            x1, y1, x2, y2 = box.round().astype(int)
            if (scenes.labels[index, y1:y2, x1:x2] > 0).mean() < 0.04:
                found[row] = box
                break
    return found


def squared(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a resize of the shorter side and a centre crop keep of each box."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def crops(pixels: torch.Tensor, rows: NDArray[np.int64], boxes: NDArray[np.float32], size: int) -> torch.Tensor:
    """The boxes of the images `rows`, each squashed to size×size."""
    regions = torch.cat([torch.from_numpy(rows).float()[:, None], torch.from_numpy(boxes).float()], dim=1)
    cut: torch.Tensor = roi_align(pixels, regions, size, sampling_ratio=1, aligned=True)
    return cut
