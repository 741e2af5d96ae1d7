"""A Prompt-to-Prompt step against a plain step of the same batch, on a UNet of SDXL's structure.

It owns the shape and the inputs; it does not know the clock.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from imgdiffd.kernels.edits import edit_pairs
from imgdiffd.kernels.prompt_to_prompt import PairController
from tests.benchmarks.measuring import Ratio, compare

TOKENS, WIDTH, STEPS = 77, 256, 10
CAPTIONS = ("a dog lies on the grass", "a cat lies on the grass")


def small_unet() -> UNet2DConditionModel:
    """SDXL's blocks with fewer channels and layers: attention over 32×32 and 16×16 latents, heads of 64."""
    torch.manual_seed(1)
    unet: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(64, 128, 256),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 4),
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=6 * 32 + WIDTH,
    ).eval()
    return unet


def tokenize(caption: str) -> list[int]:
    """A number for each word, a begin and an end mark around them."""
    return [1, *(2 + sum(map(ord, word)) for word in caption.split()), 0]


def ratios(pairs: int = 2) -> Iterator[Ratio]:
    """Ours over plain: a step with both injections, and one with cross-injection alone."""
    unet, generator = small_unet(), torch.Generator().manual_seed(2)
    text = torch.randn(2 * pairs, TOKENS, WIDTH, generator=generator)
    rows = 4 * pairs
    latents = torch.randn(rows, 4, 64, 64, generator=generator)
    inputs: dict[str, Any] = {
        "encoder_hidden_states": torch.cat([torch.zeros_like(text), text]),
        "added_cond_kwargs": {"text_embeds": torch.zeros(rows, WIDTH), "time_ids": torch.zeros(rows, 6)},
        "return_dict": False,
    }
    plan = edit_pairs(
        [CAPTIONS] * pairs, tokenize, TOKENS, edit="refine", cross_fraction=1.0, self_fraction=0.4, self_max_tokens=1024
    )

    def step(model: UNet2DConditionModel) -> Callable[[], object]:
        return lambda: model(latents, 500, **inputs)

    plain = small_unet()
    control = PairController(unet)
    with torch.inference_mode(), control.painting(text, None, guided=True, injection=plan, steps=STEPS):
        for at, what in ((0, "self- and cross-injection"), (STEPS - 1, "cross-injection")):
            control.enter_step(at)
            yield compare(f"Prompt-to-Prompt step, {what} / plain step", step(unet), step(plain), target=1.0)
