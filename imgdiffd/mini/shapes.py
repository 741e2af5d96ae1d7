"""The twelve objects of the miniature world as polygons in a unit square, and how one is painted on a canvas."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
RGB = tuple[int, int, int]

BROWN: RGB = (122, 82, 48)
CHARCOAL: RGB = (38, 38, 44)
CREAM: RGB = (246, 238, 214)


@dataclass(frozen=True)
class Part:
    """One flat piece of an object: its rings (even-odd, so a second ring is a hole) and its shade.

    A float shade multiplies the object's colour (above 1 mixes in white); an RGB shade is the same on every object.
    """

    rings: tuple[Points, ...]
    shade: float | RGB = 1.0


def _points(*pairs: tuple[float, float]) -> Points:
    return np.array(pairs, dtype=np.float64)


def _ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> Points:
    angles = np.radians(np.linspace(start, end, 33))
    return np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1)


def _star() -> Points:
    angles = np.radians(np.arange(10) * 36 - 90)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.5)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles) + 0.06], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 41)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return np.stack([x, y - 0.05], axis=1)


def _crescent() -> Points:
    outer = _ellipse(0.0, 0.0, 0.95, 0.95, 50, 310)
    inner = _ellipse(0.42, 0.0, 0.72, 0.74, 285, 75)
    return np.concatenate([outer, inner])


SHAPES: dict[str, tuple[Part, ...]] = {
    "ball": (
        Part((_ellipse(0, 0, 0.92, 0.92),)),
        Part((_ellipse(-0.3, -0.34, 0.28, 0.24),), 1.6),
    ),
    "cube": (
        Part((_points((-0.85, -0.45), (0, -0.05), (0, 0.95), (-0.85, 0.55)),)),
        Part((_points((0.85, -0.45), (0, -0.05), (0, 0.95), (0.85, 0.55)),), 0.62),
        Part((_points((-0.85, -0.45), (0, -0.9), (0.85, -0.45), (0, -0.05)),), 1.45),
    ),
    "cone": (
        Part((np.concatenate([_points((0.0, -1.0)), _ellipse(0, 0.72, 0.82, 0.25, 0, 180)]),)),
        Part((_points((0.0, -1.0), (0.82, 0.72), (0.5, 0.92), (0.22, 0.96)),), 0.66),
    ),
    "star": (Part((_star(),)),),
    "ring": (Part((_ellipse(0, 0, 0.95, 0.95), _ellipse(0, 0, 0.45, 0.45))),),
    "heart": (Part((_heart(),)),),
    "tree": (
        Part((_points((-0.2, 0.2), (0.2, 0.2), (0.24, 1.0), (-0.24, 1.0)),), BROWN),
        Part((_ellipse(0.4, -0.08, 0.48, 0.46),)),
        Part((_ellipse(-0.4, -0.08, 0.48, 0.46),)),
        Part((_ellipse(0, -0.5, 0.52, 0.5),)),
    ),
    "house": (
        Part((_points((-0.75, -0.2), (0.75, -0.2), (0.75, 0.92), (-0.75, 0.92)),)),
        Part((_points((-1.0, -0.15), (0, -0.98), (1.0, -0.15)),), 0.6),
        Part((_points((-0.2, 0.3), (0.2, 0.3), (0.2, 0.92), (-0.2, 0.92)),), CREAM),
    ),
    "car": (
        Part((_points((-0.62, -0.1), (-0.4, -0.62), (0.38, -0.62), (0.66, -0.1)),), CREAM),
        Part(
            (
                _points(
                    (-1.12, -0.12),
                    (0.95, -0.12),
                    (1.14, 0.06),
                    (1.14, 0.46),
                    (-1.12, 0.46),
                ),
            )
        ),
        Part((_ellipse(-0.6, 0.46, 0.32, 0.32),), CHARCOAL),
        Part((_ellipse(0.6, 0.46, 0.32, 0.32),), CHARCOAL),
    ),
    "fish": (
        Part((_points((0.4, 0.0), (1.12, -0.66), (1.0, 0.0), (1.12, 0.66)),), 0.66),
        Part((_ellipse(-0.26, 0, 0.88, 0.64),)),
        Part((_ellipse(-0.66, -0.14, 0.15, 0.15),), CHARCOAL),
    ),
    "cup": (
        Part(
            (_ellipse(0.62, 0.08, 0.44, 0.46), _ellipse(0.62, 0.08, 0.18, 0.2)),
        ),
        Part((_points((-0.86, -0.66), (0.62, -0.66), (0.44, 0.88), (-0.66, 0.88)),)),
        Part((_ellipse(-0.12, -0.66, 0.74, 0.22),), 0.5),
    ),
    "moon": (Part((_crescent(),)),),
}


def _shaded(colour: RGB, shade: float | RGB) -> RGB:
    if isinstance(shade, tuple):
        return shade
    base = np.array(colour, dtype=np.float64)
    mixed = base * shade if shade <= 1 else base + (255 - base) * (shade - 1)
    return int(mixed[0]), int(mixed[1]), int(mixed[2])


@dataclass(frozen=True)
class Pose:
    """Where an object stands on a canvas: centre and half-size in canvas pixels, tilt in radians, mirrored or not."""

    cx: float
    cy: float
    half: float
    tilt: float
    mirrored: bool

    def scaled(self, factor: float) -> Pose:
        """The same pose on a canvas `factor` times as large."""
        return Pose(factor * self.cx, factor * self.cy, factor * self.half, self.tilt, self.mirrored)

    def placed(self, points: Points) -> NDArray[np.int32]:
        """Points of the unit square in this pose, as whole canvas pixels."""
        x, y = points[:, 0] * (-1 if self.mirrored else 1), points[:, 1]
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        placed = np.stack(
            [
                self.cx + self.half * (cos * x - sin * y),
                self.cy + self.half * (sin * x + cos * y),
            ],
            1,
        )
        return np.round(placed).astype(np.int32)


def paint_shape(
    canvas: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    noun: str,
    colour: RGB,
    outline: RGB,
    pose: Pose,
    label: int,
) -> None:
    """Paint one outlined object on `canvas` (HxWx3 RGB) and its number on `labels` (HxW), both in place."""
    thickness = max(3, round(pose.half * 0.10))
    parts = [([pose.placed(ring) for ring in part.rings], _shaded(colour, part.shade)) for part in SHAPES[noun]]
    for rings, _ in parts:
        cv2.polylines(canvas, rings, True, outline, thickness)
        cv2.polylines(labels, rings, True, label, thickness)
    for rings, fill in parts:
        cv2.fillPoly(canvas, rings, fill)
        cv2.fillPoly(labels, rings, label)
