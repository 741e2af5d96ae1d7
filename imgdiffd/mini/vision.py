"""The vision tower that CLIP, BLIP and the captioner share, and the dense labels that teach it fast.

A pooled objective alone learns slowly on small images; asking every patch which noun and colour covers it does not.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from imgdiffd.mini.world import COLOURS, IMAGE_PX, NOUNS

PATCH_PX = 8
WIDTH = 128
TOWER: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": IMAGE_PX,
    "patch_size": PATCH_PX,
    "hidden_act": "gelu",
}
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Images in 0–1, normalised as the image processors do."""
    return (pixels - 0.5) / 0.25


GROUND_WEIGHT = 0.15
"""Most patches show ground, which counts less; otherwise nothing else is learnt for a long time."""


class PatchNames(nn.Module):
    """A training-only head: the noun and the colour that cover each patch, or none."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(NOUNS) + len(COLOURS) + 2)

    def forward(self, patches: torch.Tensor, nouns: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy over `patches` (NxPxWIDTH) against Nx64 targets, -100 where the patch is mixed."""
        logits = self.head(self.norm(patches)).flatten(0, 1)
        noun, colour = logits.split([len(NOUNS) + 1, len(COLOURS) + 1], dim=1)
        return F.cross_entropy(noun, nouns.flatten()) + F.cross_entropy(colour, colours.flatten())


def patch_targets(
    labels: NDArray[np.uint8], nouns: NDArray[np.int64], colours: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per 8×8 patch of Nx64x64 `labels` the noun and the colour of the object that covers most of it, 0 for ground."""
    side = IMAGE_PX // PATCH_PX
    tiles = labels.reshape(len(labels), side, PATCH_PX, side, PATCH_PX)
    shares = np.stack([(tiles == slot).mean(axis=(2, 4)) for slot in range(4)], axis=-1).reshape(
        len(labels), side**2, 4
    )
    objects = shares[..., 1:]
    owner, share = objects.argmax(axis=-1), objects.max(axis=-1)
    rows = np.arange(len(labels))[:, None]
    noun = np.where(share > 0.25, nouns[rows, owner] + 1, np.where(share < 0.05, 0, -100))
    colour = np.where(share > 0.25, colours[rows, owner] + 1, np.where(share < 0.05, 0, -100))
    return torch.from_numpy(noun), torch.from_numpy(colour)


class Sight(nn.Module):
    """A tower and training-only heads that ask each patch for the noun, the colour and the place of what it shows."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower, self.names = tower, PatchNames()
        self.places = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, (IMAGE_PX // PATCH_PX) ** 2))

    def loss(self, patches: torch.Tensor, nouns: torch.Tensor, colours: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The dense loss of `patches` (NxPxWIDTH), and the share of objects' patches whose noun is right."""
        logits = self.names.head(self.names.norm(patches)).flatten(0, 1)
        noun, colour = logits.split([len(NOUNS) + 1, len(COLOURS) + 1], dim=1)
        weights = [torch.tensor([GROUND_WEIGHT] + [1.0] * len(names)) for names in (NOUNS, COLOURS)]
        dense = F.cross_entropy(noun, nouns.flatten(), weights[0]) + F.cross_entropy(
            colour, colours.flatten(), weights[1]
        )
        where = torch.arange(patches.shape[1]).repeat(len(patches))
        objects = nouns.flatten() > 0
        right = (noun.argmax(1) == nouns.flatten())[objects].float().mean()
        return dense + 0.3 * F.cross_entropy(self.places(patches).flatten(0, 1), where), float(right)
