"""Copies of the first training scenes, decoded by the painter's VAE from slightly disturbed latents.

The other models learn from them, since they are as soft as painted images.
"""

import sys

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from imgdiffd import durable
from imgdiffd.mini import scenes, training

BATCH = 50
STRAY = 0.25
"""The most noise on an image's latents, in their standard deviations."""


@torch.inference_mode()
def decoded(vae: AutoencoderKL, images: NDArray[np.uint8], *, seed: int = 0) -> NDArray[np.uint8]:
    """Images (uint8 NxHxWx3) as the VAE decodes them after noise of up to `STRAY` on their latents."""
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    seen = []
    for begin in range(0, len(images), BATCH):
        pixels = torch.from_numpy(images[begin : begin + BATCH]).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = vae.encode(pixels).latent_dist.mode()
        stray = torch.from_numpy(rng.uniform(0, STRAY, (len(latents), 1, 1, 1)).astype(np.float32))
        latents = latents + stray * torch.randn(latents.shape, generator=generator)
        back = ((vae.decode(latents).sample + 1) * 127.5).round().clamp(0, 255)
        seen.append(back.permute(0, 2, 3, 1).to(torch.uint8).numpy())
    return np.concatenate(seen)


def main(argv: list[str] | None = None) -> None:
    """Decode the scenes, unless that has been done."""
    parser = training.arguments(__doc__ or "", steps=0)
    parser.add_argument("--count", type=int, default=12_000, help="scenes to decode (default 12000)")
    options = parser.parse_args(argv)
    training.start(options)
    path = scenes.decoded_path()
    if path.exists() and len(np.load(path, mmap_mode="r")) >= options.count:
        return
    vae = AutoencoderKL.from_pretrained(training.BUNDLE / "painter" / "vae", torch_dtype=torch.float32).eval()
    images = decoded(vae, scenes.cached().images[: options.count])
    durable.write({path: lambda file: np.save(file, images)})


if __name__ == "__main__":
    main(sys.argv[1:])
