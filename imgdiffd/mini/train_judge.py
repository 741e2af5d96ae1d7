"""Trains the judge on drawn scenes and their copies through the painter's VAE, and prints its held-out ceiling."""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from imgdiffd.mini import scenes, training
from imgdiffd.mini.scene_judge import CELLS, STRIDE, DenseDetector, SceneJudge, cell_boxes
from imgdiffd.mini.scenes import Scenes
from imgdiffd.mini.world import NOUNS

BATCH = 64


def targets(data: Scenes, chosen: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Per cell the number (1–3) of the object whose centre is near, 0 for none, -1 for "unsure"; and a soft peak."""
    owner = np.zeros((len(chosen), CELLS, CELLS), np.int64)
    centres = (np.arange(CELLS) + 0.5) * STRIDE
    for row, index in enumerate(chosen):
        for slot in range(data.count(index)):
            x1, y1, x2, y2 = data.boxes[index, slot]
            dx = np.abs(centres - (x1 + x2) / 2)[None, :] / (x2 - x1)
            dy = np.abs(centres - (y1 + y2) / 2)[:, None] / (y2 - y1)
            distance = np.maximum(dx, dy)
            owner[row][(distance < 0.34) & (owner[row] == 0)] = -1
            owner[row][distance < 0.2] = slot + 1
            nearest = np.unravel_index(distance.argmin(), distance.shape)
            owner[row][nearest] = slot + 1
    return torch.from_numpy(owner), torch.from_numpy(owner > 0).float()


def loss_of(net: DenseDetector, data: Scenes, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
    """One batch: is an object centred here, which noun, colour and box has it, and which place is this."""
    chosen = data.choose(rng, BATCH)
    pixels = scenes.roughened(rng, data.pixels(rng, chosen))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cells, place = net(pixels)
    cells, place = cells.float(), place.float()
    owner, peak = targets(data, chosen)
    weight = (owner >= 0).float()
    seen = F.binary_cross_entropy_with_logits(cells[:, 0], peak, weight=weight, reduction="sum") / BATCH
    rows, ys, xs = torch.nonzero(owner > 0, as_tuple=True)
    slots = owner[rows, ys, xs] - 1
    picked = cells.permute(0, 2, 3, 1)[rows, ys, xs]
    nouns = torch.from_numpy(data.nouns[chosen])[rows, slots]
    colours = torch.from_numpy(data.colours[chosen])[rows, slots]
    noun = F.cross_entropy(picked[:, 1 : 1 + len(NOUNS)], nouns)
    colour = F.cross_entropy(picked[:, 1 + len(NOUNS) : -4], colours)
    boxes = torch.from_numpy(data.boxes[chosen])[rows, slots]
    box = F.smooth_l1_loss(cell_boxes(cells[:, -4:]).permute(0, 2, 3, 1)[rows, ys, xs], boxes)
    where = F.cross_entropy(place, torch.from_numpy(data.places[chosen]))
    loss = 0.3 * seen + 2 * noun + 2 * colour + 0.2 * box + 0.3 * where
    hit = (picked[:, 1 : 1 + len(NOUNS)].argmax(1) == nouns).float().mean().item()
    return loss, {"seen": seen.item(), "noun": hit, "box": box.item(), "place": where.item()}


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two (x1, y1, x2, y2) boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def measure(judge: SceneJudge, data: Scenes, images: NDArray[np.uint8] | None = None) -> dict[str, float]:
    """The share of objects found with noun and colour right (box IoU ≥ 0.5), by the scene's count, and more shares."""
    verdicts = judge.see(data.images if images is None else images)
    hits: dict[int, list[bool]] = {1: [], 2: [], 3: []}
    extra, place = [], []
    for index, verdict in enumerate(verdicts):
        names = [data.name(index, slot) for slot in range(data.count(index))]
        for slot, (noun, colour) in enumerate(names):
            box = tuple(data.boxes[index, slot])
            same = [t for t in verdict.objects if (t.noun, t.colour) == (noun, colour) and iou(t.box, box) >= 0.5]
            hits[len(names)].append(bool(same))
        extra.append(len(verdict.objects) > len(names))
        place.append(verdict.place == data.caption(index).split()[-1] or data.count(index) == 0)
    right = {f"right_{count}": float(np.mean(found)) for count, found in hits.items() if found}
    return {**right, "extra": float(np.mean(extra)), "place": float(np.mean(place))}


def main(argv: list[str] | None = None) -> None:
    """Train, measure and export."""
    options = training.arguments(__doc__ or "", steps=600).parse_args(argv)
    training.start(options)
    net, data = DenseDetector(), scenes.cached()
    training.train("judge", net, lambda rng, _: loss_of(net, data, rng), steps=options.steps, lr=2e-3)
    judge = SceneJudge(net)
    print("judge on held-out scenes:", measure(judge, scenes.held_out()))
    with training.replaced_folder(training.BUNDLE / "judge") as folder:
        judge.save(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
