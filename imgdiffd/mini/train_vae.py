"""Trains the painter's AutoencoderKL on drawn scenes and writes it to the bundle's painter folder.

Latents come out with mean 0 and deviation 1 per channel, so the scaling factor is 1.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray

from imgdiffd.mini.parallel import MovingAverage, WallClock, average_gradients, cosine_rate, run_processes
from imgdiffd.mini.training import BUILD, BUNDLE, replaced_folder, save_atomically
from imgdiffd.mini.world import HELD_OUT_SEED, IMAGE_PX, draw_scene

LATENT_CHANNELS = 8
BATCH = 16
PEAK_RATE = 3e-3
SCENES = 24_000
CHECKPOINT = BUILD / "vae.pt"
FOLDER = BUNDLE / "painter" / "vae"


def build_vae() -> AutoencoderKL:
    """The untrained autoencoder: 64 px to 16x16 latents of eight channels (with four, small objects are lost)."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=LATENT_CHANNELS,
        sample_size=IMAGE_PX,
        scaling_factor=1.0,
        force_upcast=False,
    )


def images_of(seeds: range) -> NDArray[np.uint8]:
    """One drawn scene per seed, N x H x W x 3; one in twenty is empty."""
    return np.stack(
        [draw_scene(np.random.default_rng(seed), count=0 if seed % 20 == 0 else None).image for seed in seeds]
    )


def as_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """Images (N x H x W x 3, 0 to 255) as the VAE wants them: N x 3 x H x W in -1 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr_db(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of the reconstructions, in decibels."""
    with torch.no_grad():
        seen = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return -10 * math.log10(float(F.mse_loss(seen, images)) / 4)


def _loss(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(images).latent_dist
        seen = vae.decode(posterior.sample()).sample.float()
    edges = sum(F.l1_loss(seen.diff(dim=axis), images.diff(dim=axis)) for axis in (2, 3))
    divergence = posterior.kl().float().mean() / (3 * IMAGE_PX**2)
    loss: torch.Tensor = 0.5 * F.l1_loss(seen, images) + 2 * F.mse_loss(seen, images) + 0.25 * edges + 1e-2 * divergence
    return loss


def _train(rank: int, minutes: float, processes: int) -> None:
    torch.manual_seed(20_408)
    vae = build_vae()
    # On a CPU the fused attention's backward pass is several times slower than the plain one's at these sizes.
    vae.set_attn_processor(AttnProcessor())
    average = MovingAverage(vae, 0.998)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    clock, step = WallClock(minutes * 60), 0
    if CHECKPOINT.exists():
        saved = torch.load(CHECKPOINT, weights_only=True)
        vae.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.values, clock.spent_s, step = saved["average"], saved["spent_s"], saved["step"]
    share = SCENES // processes
    images = images_of(range(rank * share, (rank + 1) * share))
    held_out = as_tensor(images_of(range(HELD_OUT_SEED, HELD_OUT_SEED + 64)))
    rng = np.random.default_rng((rank, step))
    torch.manual_seed(step * processes + rank)
    while (fraction := clock.advance()) < 1:
        optimiser.param_groups[0]["lr"] = cosine_rate(PEAK_RATE, fraction, step, warm_up=100)
        optimiser.zero_grad()
        chosen = images[rng.integers(len(images), size=BATCH)]
        loss = _loss(vae, as_tensor(chosen[:, :, ::-1].copy() if rng.random() < 0.5 else chosen))
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(vae.parameters())
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average.update(vae, step)
        step += 1
        if rank == 0 and step % 100 == 0:
            figures = f"loss {loss.item():.4f}, held-out {psnr_db(vae, held_out):.2f} dB"
            print(f"vae step {step}: {fraction:.0%}, {figures}", flush=True)
            state = {"model": vae.state_dict(), "optimiser": optimiser.state_dict(), "average": average.values}
            save_atomically(state | {"spent_s": clock.spent_s, "step": step}, CHECKPOINT)
    if rank == 0:
        vae.load_state_dict(average.values)
        export(vae, as_tensor(images[:2000]))
        print(f"vae finished after {step} steps: held-out {psnr_db(vae, held_out):.2f} dB")


@torch.no_grad()
def export(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold the latents' mean and deviation per channel into the quant convolutions and save the VAE in fp16."""
    latents = torch.cat([vae.encode(batch).latent_dist.mode() for batch in torch.split(images, 100)])
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    weight[:LATENT_CHANNELS] /= deviation[:, None, None, None]
    bias[:LATENT_CHANNELS] = (bias[:LATENT_CHANNELS] - mean) / deviation
    bias[LATENT_CHANNELS:] -= 2 * deviation.log()
    bias_after = vae.post_quant_conv.bias + vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    vae.post_quant_conv.weight *= deviation[None, :, None, None]
    vae.post_quant_conv.bias.copy_(bias_after)
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with replaced_folder(FOLDER) as folder:
        vae.half().save_pretrained(folder)
    vae.float()


def main() -> None:
    """Train for a time budget, continuing from the checkpoint; do nothing if the bundle already has the VAE."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=22, help="time budget of all runs together (default 22)")
    parser.add_argument("--processes", type=int, default=3, help="one-thread processes (default 3)")
    options = parser.parse_args()
    if (FOLDER / "config.json").exists():
        print(f"{FOLDER} is there already; delete it to train again")
        return
    Path(CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
    run_processes(_train, options.processes, options.minutes, options.processes)


if __name__ == "__main__":
    main()
