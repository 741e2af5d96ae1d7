"""The painter's training set: latents of drawn scenes and their captions' token ids, cached below `build/mini`.

Every two scenes share a caption and nothing else, so that a batch has half as many texts to encode.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from imgdiffd import durable
from imgdiffd.mini.tokenizer import MAX_TOKENS, build_tokenizer
from imgdiffd.mini.train_vae import as_tensor
from imgdiffd.mini.world import PLACES, draw_names, draw_scene

COUNT_SHARES = (0.04, 0.25, 0.40, 0.31)
"""Shares of scenes with 0 to 3 objects: more of three than the world has, since they are the hardest to paint."""

ENCODED_AT_ONCE = 50


@dataclass(frozen=True)
class SceneLatents:
    """Latents (2N x C x h x w, fp16) and token ids (N x 77) of N captions; caption n has latents 2n and 2n + 1."""

    latents: NDArray[np.float16]
    token_ids: torch.Tensor

    def draw(self, rng: np.random.Generator, captions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of `captions` captions (two of each, side by side), and the captions' token ids."""
        chosen = rng.choice(len(self.token_ids), captions, replace=False)
        both = np.stack([2 * chosen, 2 * chosen + 1], axis=1).ravel()
        return torch.from_numpy(self.latents[both].astype(np.float32)), self.token_ids[torch.from_numpy(chosen)]


def scene_latents(folder: Path, vae: AutoencoderKL, seeds: range) -> SceneLatents:
    """The scenes of `seeds`, one caption per seed, from the cache in `folder`, which is made where it is missing."""
    stem = folder / f"scenes-{seeds.start}-{seeds.stop}"
    if not stem.with_suffix(".npy").exists():
        latents, captions = _encode(vae, seeds)
        durable.make_folder(folder)
        durable.write(
            {
                stem.with_suffix(".txt"): "\n".join(captions),
                stem.with_suffix(".npy"): lambda file: np.save(file, latents),
            }
        )
    captions = stem.with_suffix(".txt").read_text().split("\n")
    tokens = build_tokenizer()(captions, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
    return SceneLatents(np.load(stem.with_suffix(".npy")), tokens.input_ids)


@torch.no_grad()
def _encode(vae: AutoencoderKL, seeds: range) -> tuple[NDArray[np.float16], list[str]]:
    latents, captions = [], []
    for start in range(seeds.start, seeds.stop, ENCODED_AT_ONCE):
        images = []
        for seed in range(start, min(start + ENCODED_AT_ONCE, seeds.stop)):
            rng = np.random.default_rng(seed)
            objects = draw_names(rng, int(rng.choice(4, p=COUNT_SHARES)))
            place = PLACES[rng.integers(len(PLACES))]
            pair = [draw_scene(rng, objects=objects, place=place) for _ in range(2)]
            images += [scene.image for scene in pair]
            captions.append(pair[0].caption)
        latents.append(vae.encode(as_tensor(np.stack(images))).latent_dist.mode().numpy().astype(np.float16))
    return np.concatenate(latents), captions
