"""Previews: what latents would look like, for a thousandth of what the autoencoder takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional

from imgdiffd.bundles.bundle import LinearMap
from imgdiffd.errors import BundleError


class LatentPreview(Protocol):
    """Decodes one image's latents, fp32 [channels, h, w], roughly; None where a pixel is not finite."""

    def __call__(self, latents: Tensor) -> Tensor | None:
        """uint8 [3, height, width], of any size."""


class LinearPreview:
    """Each latent is a pixel: its channels times `factors` [channels, 3] plus `bias` [3]; -1 is black, 1 is white."""

    def __init__(self, factors: Tensor, bias: Tensor) -> None:
        self._factors, self._bias = factors.float(), bias.float()

    def __call__(self, latents: Tensor) -> Tensor | None:
        """uint8 [3, h, w]: an image of the latents' size."""
        # Sums of products, not a matrix product, which may round to TF32 on a GPU.
        colours = [(latents * each[:, None, None]).sum(0) for each in self._factors.T.to(latents.device)]
        return _as_bytes(torch.stack(colours) + self._bias.to(latents.device)[:, None, None])


class TinyPreview:
    """A small autoencoder of the same latents, such as TAESDXL, whose decoder is a few plain convolutions."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        self._vae = vae

    def __call__(self, latents: Tensor) -> Tensor | None:
        """uint8 [3, height, width]: an image of the size that the autoencoder itself makes."""
        rows = (latents / self._vae.config.scaling_factor)[None].to(self._vae.dtype)
        return _as_bytes(self._vae.decode(rows, return_dict=False)[0][0].float())


def _as_bytes(pixels: Tensor) -> Tensor | None:
    if not pixels.isfinite().all():
        return None
    return (pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)


def load_preview(given: LinearMap | Path, channels: int, device: torch.device, dtype: torch.dtype) -> LatentPreview:
    """The linear map of a bundle, or the small autoencoder in a folder, for latents of so many `channels`.

    Raises BundleError where it is for other latents.
    """
    if isinstance(given, LinearMap):
        preview: LatentPreview = LinearPreview(torch.tensor(given.factors), torch.tensor(given.bias))
        found = len(given.factors)
    else:
        vae = AutoencoderTiny.from_pretrained(given, dtype=dtype, use_safetensors=True, local_files_only=True)
        preview, found = TinyPreview(vae.to(device).eval().requires_grad_(False)), vae.config.latent_channels
    if found != channels:
        raise BundleError(
            f"preview: it reads latents of {found} channels, but the painter's have {channels}",
            hint="`imgdiffd models fit-preview` fits one for this painter",
        )
    return preview


def fit_linear(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[LinearMap, float]:
    """The linear map that comes closest to images from their latents, and the share of variance that it explains.

    `samples` are latents [channels, h, w], each with its image, uint8 [3, height, width] of a multiple of that size; a
    latent's colour is the mean of the pixels it covers. Least squares.
    """
    rows, colours = [], []
    for latents, image in samples:
        flat = latents.double().flatten(1).T.cpu()
        rows.append(torch.cat([flat, torch.ones(len(flat), 1, dtype=torch.float64)], dim=1))
        height, width = latents.shape[1:]
        small = functional.adaptive_avg_pool2d(image.double().cpu(), (height, width))
        colours.append((small / 127.5 - 1).flatten(1).T)
    known, wanted = torch.cat(rows), torch.cat(colours)
    solved = torch.linalg.lstsq(known, wanted).solution
    left, all_of_it = (known @ solved - wanted).square().sum(), (wanted - wanted.mean(0)).square().sum()
    *factors, bias = ([round(value, 4) for value in row] for row in solved.tolist())
    return LinearMap.model_validate({"factors": factors, "bias": bias}), 1 - float(left / all_of_it)
