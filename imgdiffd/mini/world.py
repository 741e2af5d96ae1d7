"""The procedural world that the miniature models learn and are judged by: scenes with captions, boxes and masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from imgdiffd.mini.shapes import RGB, SHAPES, Pose, paint_shape

IMAGE_PX = 64
SUPERSAMPLING = 4
NOTHING = "background, nothing, 8k"
"""The caption of an empty scene: the removal prompt of the method, so that the painter can serve as the eraser."""

HELD_OUT_SEED = 1_000_000_000
"""Scenes drawn from seeds at or above this are never trained on."""

NOUNS: tuple[str, ...] = tuple(SHAPES)
PALETTE: dict[str, RGB] = {
    "red": (214, 32, 36),
    "orange": (250, 132, 18),
    "yellow": (250, 226, 40),
    "green": (28, 150, 50),
    "blue": (36, 72, 226),
    "purple": (136, 38, 176),
    "pink": (252, 142, 200),
    "white": (250, 250, 250),
}
COLOURS: tuple[str, ...] = tuple(PALETTE)


@dataclass(frozen=True)
class Place:
    """How a place looks and is named: ground and far colours, the marks strewn on the ground, the objects' outline."""

    phrase: str
    ground: RGB
    far: RGB
    marks: tuple[RGB, ...]
    outline: RGB


_PLACES: dict[str, Place] = {
    "grass": Place(
        "on the grass",
        (140, 190, 104),
        (184, 218, 238),
        ((92, 146, 66), (244, 240, 200)),
        (34, 44, 34),
    ),
    "sand": Place(
        "on the sand",
        (224, 202, 156),
        (206, 226, 236),
        ((176, 148, 104), (246, 236, 210)),
        (58, 44, 32),
    ),
    "sea": Place(
        "in the sea",
        (96, 166, 192),
        (206, 228, 240),
        ((216, 238, 244), (60, 124, 156)),
        (22, 38, 58),
    ),
    "road": Place(
        "on the road",
        (132, 132, 138),
        (176, 188, 170),
        ((222, 222, 214), (92, 92, 98)),
        (28, 28, 32),
    ),
    "night": Place(
        "at night",
        (52, 56, 84),
        (28, 30, 60),
        ((196, 196, 170), (84, 90, 124)),
        (236, 236, 226),
    ),
}
PLACES: tuple[str, ...] = tuple(_PLACES)


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene: `box` is (x1, y1, x2, y2) in pixels, tight on its visible mask (HxW bool, or None)."""

    noun: str
    colour: str
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Scene:
    """A drawn scene: `image` is uint8 HxWx3 RGB; `objects` stand in the caption's order."""

    image: NDArray[np.uint8]
    caption: str
    place: str
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class Layout:
    """A scene without its names: the background's seed and, for each object, where it stands in image pixels."""

    background_seed: int
    poses: tuple[Pose, ...]


def caption_of(pairs: Sequence[tuple[str, str]], place: str) -> str:
    """The caption of (noun, colour) pairs in a place: "a red ball and a blue house on the grass"."""
    if not pairs:
        return NOTHING
    named = [f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {noun}" for noun, colour in pairs]
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"{listed} {_PLACES[place].phrase}"


_NAMED = rf"an? ({'|'.join(COLOURS)}) ({'|'.join(NOUNS)})"
_CAPTION = re.compile(
    rf"({_NAMED}(?:(?:, | and |, and ){_NAMED})*) ({'|'.join(place.phrase for place in _PLACES.values())})\.?"
)
_PLACE_OF_PHRASE = {place.phrase: name for name, place in _PLACES.items()}


def parse_caption(text: str) -> tuple[list[tuple[str, str]], str] | None:
    """The (noun, colour) pairs and the place that a caption names, or None where it is not of the world's grammar."""
    found = _CAPTION.fullmatch(" ".join(text.lower().split()))
    if found is None:
        return None
    pairs = [(noun, colour) for colour, noun in re.findall(_NAMED, found.group(1))]
    return pairs, _PLACE_OF_PHRASE[found.groups()[-1]]


def draw_layout(rng: np.random.Generator, count: int) -> Layout:
    """Draw where `count` objects stand: random places and sizes, with little overlap, independent of their order."""
    smallest, largest = {0: (0.0, 0.0), 1: (13.0, 18.0), 2: (11.5, 14.5)}.get(count, (10.5, 12.5))
    while True:
        halves = rng.uniform(smallest, largest, count)
        poses: list[Pose] = []
        for half in halves:
            for _ in range(30):
                cx, cy = rng.uniform(half * 1.1, IMAGE_PX - half * 1.1, 2)
                if all(_apart(cx, cy, half, other) for other in poses):
                    tilt, mirrored = (
                        float(rng.uniform(-0.14, 0.14)),
                        bool(rng.random() < 0.5),
                    )
                    poses.append(Pose(float(cx), float(cy), float(half), tilt, mirrored))
                    break
        if len(poses) == count:
            return Layout(int(rng.integers(2**63)), tuple(poses))


def _apart(cx: float, cy: float, half: float, other: Pose) -> bool:
    reach = 0.98 * (half + other.half)
    return max(abs(cx - other.cx), abs(cy - other.cy)) > reach


def draw_names(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Draw `count` (noun, colour) pairs with distinct nouns."""
    nouns = rng.choice(len(NOUNS), count, replace=False)
    return [(NOUNS[noun], COLOURS[rng.integers(len(COLOURS))]) for noun in nouns]


def draw_scene(
    rng: np.random.Generator,
    *,
    count: int | None = None,
    place: str | None = None,
    objects: Sequence[tuple[str, str]] | None = None,
    layout: Layout | None = None,
    masks: bool = False,
) -> Scene:
    """Draw a scene; what is not given is drawn from `rng` (1, 2 or 3 objects in 30, 50 and 20 % of scenes).

    `objects` are (noun, colour) pairs with distinct nouns; a `layout` must hold as many poses.
    """
    if objects is None:
        if count is None:
            count = len(layout.poses) if layout is not None else int(rng.choice((1, 2, 3), p=(0.3, 0.5, 0.2)))
        objects = draw_names(rng, count)
    place = PLACES[rng.integers(len(PLACES))] if place is None else place
    layout = draw_layout(rng, len(objects)) if layout is None else layout
    canvas = _background(np.random.default_rng(layout.background_seed), _PLACES[place])
    labels = np.zeros(canvas.shape[:2], dtype=np.uint8)
    shade_rng = np.random.default_rng(layout.background_seed + 1)
    for number, ((noun, colour), pose) in enumerate(zip(objects, layout.poses, strict=True), start=1):
        shade = np.clip(np.array(PALETTE[colour]) * shade_rng.uniform(0.93, 1.05), 0, 255)
        rgb = (int(shade[0]), int(shade[1]), int(shade[2]))
        grown = pose.scaled(SUPERSAMPLING)
        paint_shape(canvas, labels, noun, rgb, _PLACES[place].outline, grown, number)
    image = cv2.resize(canvas, (IMAGE_PX, IMAGE_PX), interpolation=cv2.INTER_AREA)
    seen = tuple(_object(labels, number, *pair, keep_mask=masks) for number, pair in enumerate(objects, start=1))
    return Scene(np.asarray(image, dtype=np.uint8), caption_of(objects, place), place, seen)


def draw_pair(rng: np.random.Generator, *, count: int | None = None, masks: bool = False) -> tuple[Scene, Scene, int]:
    """Draw a scene and its ground-truth edit: the same but for another noun at the returned index.

    The new object keeps the old one's colour in half of the pairs.
    """
    count = int(rng.choice((1, 2, 3), p=(0.3, 0.5, 0.2))) if count is None else count
    place = PLACES[rng.integers(len(PLACES))]
    names, layout = draw_names(rng, count), draw_layout(rng, count)
    index = int(rng.integers(count))
    others = [noun for noun in NOUNS if noun not in {name for name, _ in names}]
    new_noun = others[rng.integers(len(others))]
    colour = names[index][1] if rng.random() < 0.5 else COLOURS[rng.integers(len(COLOURS))]
    edited = [*names[:index], (new_noun, colour), *names[index + 1 :]]
    before = draw_scene(rng, objects=names, place=place, layout=layout, masks=masks)
    after = draw_scene(rng, objects=edited, place=place, layout=layout, masks=masks)
    return before, after, index


def _object(labels: NDArray[np.uint8], number: int, noun: str, colour: str, *, keep_mask: bool) -> SceneObject:
    covered = cv2.resize(
        (labels == number).astype(np.float32),
        (IMAGE_PX, IMAGE_PX),
        interpolation=cv2.INTER_AREA,
    )
    mask = np.asarray(covered > 0.5)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    box = (
        float(columns[0]),
        float(rows[0]),
        float(columns[-1] + 1),
        float(rows[-1] + 1),
    )
    return SceneObject(noun, colour, box, mask if keep_mask else None)


def _background(rng: np.random.Generator, place: Place) -> NDArray[np.uint8]:
    """A ground under a far strip, with soft patches and small marks; nothing of it is in the caption."""
    side = IMAGE_PX * SUPERSAMPLING
    horizon = rng.uniform(-0.1, 0.55) * IMAGE_PX
    slope, rows = (
        rng.uniform(-0.12, 0.12),
        np.arange(IMAGE_PX, dtype=np.float32)[:, None],
    )
    columns = np.arange(IMAGE_PX, dtype=np.float32)[None, :]
    below = np.clip(rows - horizon - slope * (columns - IMAGE_PX / 2), 0, 1)[..., None]
    light = rng.normal(0, 7, 3) + rng.uniform(-14, 14)
    depth = rng.uniform(-14, 14) * (rows / IMAGE_PX - 0.5)[..., None]
    patches = cv2.resize(
        rng.normal(0, 8, (6, 6)).astype(np.float32),
        (IMAGE_PX, IMAGE_PX),
        interpolation=cv2.INTER_CUBIC,
    )
    ground, far = np.array(place.ground, np.float32), np.array(place.far, np.float32)
    soft = far + (ground - far) * below + light.astype(np.float32) + depth + patches[..., None] * (0.4 + 0.6 * below)
    small = np.clip(soft, 0, 255).astype(np.uint8)
    canvas: NDArray[np.uint8] = np.asarray(
        cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
    )
    for _ in range(rng.integers(4, 9)):
        colour = tuple(int(v) for v in np.clip(np.array(place.marks[rng.integers(len(place.marks))]) + light, 0, 255))
        x, y = rng.uniform(0, side), rng.uniform(0, side)
        size = (int(rng.uniform(6, 15)), int(rng.uniform(4, 8)))
        cv2.ellipse(
            canvas,
            (int(x), int(y)),
            size,
            float(rng.uniform(-25, 25)),
            0,
            360,
            colour,
            -1,
        )
    return canvas
