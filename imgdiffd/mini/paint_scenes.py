"""Paints captions and keeps the images that show the judge exactly what was asked for, as training scenes.

The models that look at painted images learn from them.
"""

import sys
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray

from imgdiffd import durable
from imgdiffd.mini import scenes, training
from imgdiffd.mini.scene_judge import SceneJudge
from imgdiffd.mini.scenes import MOST_OBJECTS, Scenes
from imgdiffd.mini.world import COLOURS, IMAGE_PX, NOUNS, PLACES, caption_of, draw_names, parse_caption

BATCH, STEPS, GUIDANCE = 16, 14, 4.0
COUNTS = (0.25, 0.45, 0.30)


def painted(pipeline: StableDiffusionXLPipeline, count: int, seed: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Images (uint8 Nx64x64x3) and the captions they were painted from."""
    rng = np.random.default_rng(seed)
    images, captions = [], []
    for begin in range(0, count, BATCH):
        named = [draw_names(rng, int(rng.choice((1, 2, 3), p=COUNTS))) for _ in range(BATCH)]
        asked = [caption_of(names, PLACES[rng.integers(len(PLACES))]) for names in named]
        noise = [torch.Generator().manual_seed(1_000_000 * seed + begin + k) for k in range(BATCH)]
        out = pipeline(
            asked,
            height=IMAGE_PX,
            width=IMAGE_PX,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=noise,
            output_type="np",
        )
        images.append((out.images * 255).round().astype(np.uint8))
        captions += asked
    return np.concatenate(images), captions


def as_scenes(images: NDArray[np.uint8], captions: list[str], judge: SceneJudge) -> Scenes:
    """The images in which the judge sees the caption's objects, as scenes; all of a judge's box counts as object."""
    kept, rows = [], []
    for index, (verdict, caption) in enumerate(zip(judge.see(images), captions, strict=True)):
        named = parse_caption(caption)
        seen = sorted((each.noun, each.colour) for each in verdict.objects)
        if named is not None and seen == sorted(named[0]):
            kept.append(index)
            rows.append((verdict.objects, PLACES.index(named[1])))
    nouns, colours = np.full((2, len(kept), MOST_OBJECTS), -1, np.int64)
    boxes = np.zeros((len(kept), MOST_OBJECTS, 4), np.float32)
    labels = np.zeros((len(kept), IMAGE_PX, IMAGE_PX), np.uint8)
    for row, (objects, _) in enumerate(rows):
        for slot, each in enumerate(objects):
            nouns[row, slot], colours[row, slot] = NOUNS.index(each.noun), COLOURS.index(each.colour)
            boxes[row, slot] = each.box
            x1, y1, x2, y2 = (round(v) for v in each.box)
            labels[row, y1:y2, x1:x2] = slot + 1
    return Scenes(images[kept], labels, nouns, colours, boxes, np.array([place for _, place in rows], np.int64))


def main(argv: list[str] | None = None) -> None:
    """Paint what is not painted yet."""
    parser = training.arguments(__doc__ or "", steps=0)
    parser.add_argument("--count", type=int, default=1920, help="images to paint (default 1920)")
    options = parser.parse_args(argv)
    training.start(options)
    path = scenes.painted_path()
    if path.exists():
        return
    folder = training.BUNDLE / "painter"
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    made = as_scenes(*painted(pipeline, options.count, seed=1), SceneJudge.load(training.BUNDLE / "judge"))
    fields: dict[str, Any] = {key: value for key, value in vars(made).items() if isinstance(value, np.ndarray)}
    durable.write({path: lambda file: np.savez(file, **fields)})


if __name__ == "__main__":
    main(sys.argv[1:])
