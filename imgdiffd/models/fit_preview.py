"""Fits a painter's linear preview to images that it paints itself."""

from collections.abc import Sequence

import torch

from imgdiffd.bundles.bundle import LinearMap
from imgdiffd.method.profile_sections import Generate
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.models.preview import fit_linear

CAPTIONS = (
    "a man in a black coat walks a brown dog along a snowy street",
    "two children fly a red kite on a green hill under a blue sky",
    "a bowl of oranges and lemons on a white tablecloth",
    "a yellow taxi in heavy rain at night, neon signs on the wet road",
    "a woman in a pink dress reads a book on a wooden bench",
    "a white sailing boat on a calm turquoise sea",
    "a kitchen with grey cupboards, copper pans and a potted plant",
    "a herd of elephants at a water hole in golden evening light",
    "an old stone bridge over a river between autumn trees",
    "a snowboarder in a green jacket jumps over a ridge",
    "a tabby cat asleep on a purple sofa beside a lamp",
    "a market stall with tomatoes, aubergines and bunches of herbs",
    "a steam train crosses a viaduct in thick fog",
    "a close portrait of a bearded fisherman with a yellow hat",
    "a bathroom with blue tiles and a white bathtub",
    "fireworks over a dark harbour with many small boats",
)


@torch.inference_mode()
def fit_preview(painter: Painter, captions: Sequence[str], generate: Generate) -> tuple[LinearMap, float]:
    """The linear map from the painter's latents to colours, and the share of the colours' variance that it explains.

    Paints an image for each of an even number of `captions`, at the sizes of `generate`, without any edit.
    """
    free = generate.model_copy(update={"edit": "none", "reweight": {}, "word_steps": {}})
    drawn = enumerate(zip(captions[::2], captions[1::2], strict=True))
    prompts = [PairPrompt(caption1, caption2, seed) for seed, (caption1, caption2) in drawn]
    images = [image for pair in painter.paint_pairs(prompts, free) for image in pair]
    return fit_linear([(painter.sdxl.encode_image(image), image) for image in images])
