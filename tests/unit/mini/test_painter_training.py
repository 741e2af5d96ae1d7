"""The laws of the miniature painter's training arithmetic and of the folder that it is shipped in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from torch import nn

from imgdiffd.mini.parallel import MovingAverage, cosine_rate
from imgdiffd.mini.train_painter import FOLDER, build_scheduler
from imgdiffd.mini.train_vae import as_tensor, images_of, psnr_db
from imgdiffd.mini.world import HELD_OUT_SEED, draw_scene


def test_the_rate_warms_up_by_steps_and_falls_with_time() -> None:
    assert cosine_rate(1.0, 0.0, 9, warm_up=100) == pytest.approx(0.1)
    rates = [cosine_rate(1.0, fraction, 500, warm_up=100) for fraction in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1.0
    assert rates[-1] == 0.01


def test_the_moving_average_forgets_its_first_values_fast() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = MovingAverage(module, 0.9)
    nn.init.ones_(module.weight)
    average.update(module, 1)
    assert average.values["weight"].item() == pytest.approx(1 - 2 / 11)
    nn.init.zeros_(module.weight)
    before = average.values["weight"].item()
    average.update(module, 10_000)
    assert average.values["weight"].item() == pytest.approx(0.9 * before)


def test_the_first_step_starts_from_pure_noise() -> None:
    scheduler = build_scheduler()
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == 999
    assert scheduler.alphas_cumprod[999] == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    loaded = StableDiffusionXLPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_the_painter_is_small_and_safe_to_load() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 14e6
    assert {path.suffix for path in files} <= {".json", ".txt", ".safetensors"}


def test_the_autoencoder_reconstructs_unseen_scenes() -> None:
    vae = AutoencoderKL.from_pretrained(FOLDER / "vae", torch_dtype=torch.float32)
    images = as_tensor(images_of(range(HELD_OUT_SEED, HELD_OUT_SEED + 16)))
    assert psnr_db(vae, images) > 29
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mode()
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.35
    assert (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 0.35


def test_the_stock_pipeline_paints_the_captioned_colour(pipeline: StableDiffusionXLPipeline) -> None:
    def share(colour: str) -> float:
        generator = torch.Generator().manual_seed(3)
        image = pipeline(
            prompt=f"a {colour} ball on the road",
            height=64,
            width=64,
            num_inference_steps=10,
            guidance_scale=4.0,
            generator=generator,
            output_type="np",
        ).images[0]
        red, green, blue = np.moveaxis(image, -1, 0)
        return float(((red > 0.6) & (green < 0.3) & (blue < 0.35)).mean())

    drawn = draw_scene(np.random.default_rng(1), objects=[("ball", "red")], place="road").image / 255
    assert ((drawn[..., 0] > 0.6) & (drawn[..., 1] < 0.3)).mean() > 0.05
    assert share("red") > 0.05
    assert share("blue") < 0.01
