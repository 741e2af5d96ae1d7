"""The eraser: SDXL inpainting (paper, section 16) that takes an object out of an image and leaves every other pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from imgdiffd.errors import BundleError, StageError
from imgdiffd.method.profile_sections import Removal
from imgdiffd.models.sdxl import Sdxl


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """What to erase: `mask` [H, W] is true on the object in `image` (uint8 [3, H, W]); `seed` draws what replaces it.

    Image and mask are on the eraser's device, both sides `removal.picture_px` long.
    """

    image: Tensor
    mask: Tensor
    seed: int


class Eraser:
    """Works on any SDXL checkpoint whose UNet reads plain latents; it may share one with a painter."""

    def __init__(self, sdxl: Sdxl, pictures_per_pass: int) -> None:
        """Raises BundleError for a UNet that reads masks beside latents: its weights need another procedure."""
        channels = sdxl.unet.config.in_channels
        if channels != sdxl.vae.config.latent_channels:
            raise BundleError(
                f"the eraser's UNet reads {channels} channels, its autoencoder's latents have "
                f"{sdxl.vae.config.latent_channels}",
                hint="give a text-to-image checkpoint, such as stabilityai/sdxl-turbo",
            )
        self.sdxl = sdxl
        self._images_per_pass = pictures_per_pass

    def repeated_blocks(self) -> list[nn.Module]:
        """The blocks of its checkpoint, which are worth compiling."""
        return self.sdxl.repeated_blocks()

    @torch.inference_mode()
    def erase(self, holes: Sequence[Hole], removal: Removal) -> list[Tensor]:
        """Each image without its object, uint8 [3, H, W].

        Pixels further than `dilate_px` + `feather_px` from the mask are bit for bit the original's. Runs in passes of
        exactly `pictures_per_pass` images, the last one filled up, so that no result depends on its batch mates. Raises
        ProfileError for a size that the checkpoint cannot make, ValueError for an image or mask of another size,
        StageError where an image is not finite.
        """
        self.sdxl.check_size("removal.picture_px", removal.picture_px)
        wanted = (removal.picture_px, removal.picture_px)
        for hole in holes:
            if hole.image.shape[1:] != wanted or hole.mask.shape != wanted:
                sizes = f"{tuple(hole.image.shape)} and {tuple(hole.mask.shape)}"
                raise ValueError(f"image and mask are {sizes}, but removal.picture_px is {removal.picture_px}")
        size = self._images_per_pass
        erased: list[Tensor] = []
        for start in range(0, len(holes), size):
            mates = list(holes[start : start + size])
            painted = self._inpaint(mates + mates[-1:] * (size - len(mates)), removal)
            erased += [_pasted(hole, each, removal) for hole, each in zip(mates, painted, strict=False)]
        return erased

    def _inpaint(self, holes: Sequence[Hole], removal: Removal) -> list[Tensor]:
        """Whole decoded images; the autoencoder has changed their pixels outside the holes, too."""
        prompt = self.sdxl.prompt([removal.prompt] * len(holes), removal.picture_px, removal.guidance_scale)
        originals = torch.stack([self.sdxl.encode_image(hole.image) for hole in holes])
        reach = removal.dilate_px + removal.feather_px
        open_latents = torch.stack([self._open_latents(dilated(hole.mask, reach)) for hole in holes])
        generators = [torch.Generator().manual_seed(hole.seed) for hole in holes]
        noise = torch.stack([torch.randn(originals.shape[1:], generator=each) for each in generators])
        noise = noise.to(originals.device)

        scheduler = self.sdxl.scheduler
        times = self.sdxl.begin(removal.steps, removal.steps - int(removal.steps * removal.strength))
        if removal.strength == 1:
            latents = noise * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(originals, noise, times[:1])
        for step, time in enumerate(times):
            latents, _ = self.sdxl.denoise(latents, time, prompt, generators)
            following = times[step + 1 : step + 2]
            kept = scheduler.add_noise(originals, noise, following) if len(following) else originals
            latents = torch.where(open_latents, latents, kept)
        images = [self.sdxl.decode(each) for each in latents]
        if any(image is None for image in images):
            raise StageError(
                "the eraser's image is not finite",
                hint="load it in bfloat16 or float32, or give it a VAE that does not overflow in half precision",
            )
        return [image for image in images if image is not None]

    def _open_latents(self, mask: Tensor) -> Tensor:
        """[1, h, w], true where a latent covers any pixel of the mask."""
        step = self.sdxl.pixels_per_latent
        return functional.max_pool2d(mask.float()[None], step, step) > 0


def dilated(mask: Tensor, px: int) -> Tensor:
    """A boolean mask [H, W], grown by `px` in every direction, including diagonals."""
    grown = functional.max_pool2d(mask.float()[None], (2 * px + 1, 1), 1, (px, 0))
    return functional.max_pool2d(grown, (1, 2 * px + 1), 1, (0, px))[0] > 0


def feathered(mask: Tensor, px: int) -> Tensor:
    """1 on the mask, falling in equal steps to exactly 0 at `px` + 1 pixels from it: float [H, W]."""
    return torch.stack([dilated(mask, each) for each in range(px + 1)]).float().mean(0)


def _pasted(hole: Hole, painted: Tensor, removal: Removal) -> Tensor:
    """The painted pixels inside the feathered, dilated mask, the original's outside of it."""
    share = feathered(dilated(hole.mask, removal.dilate_px), removal.feather_px)
    mixed = (painted * share + hole.image * (1 - share)).round().clamp(0, 255).to(torch.uint8)
    return torch.where(share > 0, mixed, hole.image)
