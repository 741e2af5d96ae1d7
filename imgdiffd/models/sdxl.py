"""An SDXL checkpoint for painter and eraser: text encoders, UNet, scheduler and autoencoder behind a few calls."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from safetensors import SafetensorError
from torch import Tensor, nn

from imgdiffd.errors import BundleError, InputError, ProfileError
from imgdiffd.kernels.compile import attending_layers
from imgdiffd.models.sources import one_line, own_weights

_BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")
_EMBEDDED = "imgdiffd_embedded"  # beside diffusers' own keys of the added conditioning


@dataclass(frozen=True, slots=True)
class Prompt:
    """The UNet's conditioning beside latents and time.

    `text` [images, tokens, width] are the encoded captions; `unguided` [1, tokens, width] is what guidance leads away
    from, None without guidance. `rows` (the text) and `added` (pooled text and sizes, and what the UNet makes of them,
    which is the same in every step) are what one UNet call takes, the unguided half first.
    """

    text: Tensor
    unguided: Tensor | None
    rows: Tensor
    added: dict[str, Tensor]
    guidance_scale: float


class Sdxl:
    """The components of a `StableDiffusionXLPipeline`. Latents are fp32 [images, channels, height, width]."""

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self.device = device
        self.tokenizer = pipeline.tokenizer
        self._tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2)
        self._encoders = tuple(each.to(device).eval() for each in (pipeline.text_encoder, pipeline.text_encoder_2))
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.unet = pipeline.unet.to(device, memory_format=layout).eval()
        condition_once(self.unet)
        # SDXL's own decoder overflows in half precision, and its configuration says so; a repaired one needs no upcast.
        vae = pipeline.vae.to(device, memory_format=layout).eval()
        self.vae = vae.float() if device.type == "cpu" or vae.config.force_upcast else vae
        self.pixels_per_latent: int = pipeline.vae_scale_factor
        self.scheduler = pipeline.scheduler
        self.decodes_repeated = 0  # images that overflowed in half precision and were decoded again in fp32
        self.zero_empty_prompt = bool(pipeline.config.force_zeros_for_empty_prompt)

    @classmethod
    def load(
        cls,
        source: str,
        device: torch.device,
        dtype: torch.dtype,
        *,
        variant: str | None = None,
        vae: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Loads a folder or hub id in the diffusers format, from safetensors only, with UNet and encoders in `dtype`.

        `vae` is the folder or hub id of an autoencoder to use instead of the checkpoint's own. Raises BundleError with
        the reason where a part is missing, damaged, or not SDXL's.
        """
        hint = "name an SDXL checkpoint in the diffusers format, with safetensors; *.fp16.* files need variant = 'fp16'"
        parts: dict[str, Any] = {}
        try:
            if vae is not None:
                parts["vae"] = AutoencoderKL.from_pretrained(
                    vae, dtype=dtype, use_safetensors=True, local_files_only=local_files_only
                )
            pipeline = StableDiffusionXLPipeline.from_pretrained(
                source,
                dtype=dtype,
                variant=variant,
                local_files_only=local_files_only,
                use_safetensors=True,
                add_watermarker=False,
                **parts,
            )
        except torch.OutOfMemoryError:
            raise  # it is a RuntimeError too, but the files are not to blame
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise BundleError(one_line(error), hint=hint) from error
        if reason := _unfit(pipeline):
            raise BundleError(reason, hint=hint)
        if device.type == "cpu":
            for part in pipeline.components.values():
                if isinstance(part, nn.Module):
                    own_weights(part)
        return cls(pipeline, device)

    def repeated_blocks(self) -> list[nn.Module]:
        """The blocks of UNet, autoencoder and text encoders: many with few shapes, which is worth compiling."""
        blocks = [*repeated_blocks(self.unet), *repeated_blocks(self.vae)]
        return blocks + [layer for encoder in self._encoders for layer in attending_layers(encoder)]

    def check_size(self, key: str, picture_px: int) -> None:
        """Raises ProfileError naming `key` for an image size that the autoencoder cannot make."""
        step = self.pixels_per_latent
        if picture_px % step:
            raise ProfileError(
                f"{key} is {picture_px}, which this checkpoint cannot divide by {step}",
                hint=f"choose a multiple of {step}",
            )

    def prompt(self, captions: Sequence[str], picture_px: int, guidance_scale: float) -> Prompt:
        """The conditioning for one image per caption. Guidance is off where the scale is at most 1.

        Raises InputError where a caption has more tokens than the encoders read.
        """
        text, pooled = self._encode(captions)
        rows, unguided = text, None
        if guidance_scale > 1:
            unguided, empty_pooled = self._empty_prompt(text, pooled)
            rows = torch.cat([unguided.expand(len(text), -1, -1), text])
            pooled = torch.cat([empty_pooled.expand(len(text), -1), pooled])
        px = float(picture_px)
        sizes = torch.tensor([[px, px, 0, 0, px, px]], dtype=text.dtype, device=self.device)  # original, crop, target
        added = embedded(self.unet, rows, {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)})
        return Prompt(text, unguided, rows, added, guidance_scale)

    def begin(self, steps: int, skipped: int = 0) -> Tensor:
        """The timesteps of `steps` steps without the first `skipped`; sets the scheduler to the first that is left."""
        self.scheduler.set_timesteps(steps, device=self.device)
        first = skipped * self.scheduler.order
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(first)
        times: Tensor = self.scheduler.timesteps[first:]
        return times

    def denoise(
        self, latents: Tensor, time: Tensor, prompt: Prompt, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor | None]:
        """One step: the latents at the next time, and what they would be at the end by this step's own estimate.

        The estimate is None where the scheduler gives none. `generators`, one per image, serve schedulers that add
        noise.
        """
        guided = prompt.unguided is not None
        rows = self.scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
        noise = self.unet(
            rows.to(self.unet.dtype),
            time,
            encoder_hidden_states=prompt.rows,
            added_cond_kwargs=prompt.added,
            return_dict=False,
        )[0].float()
        if guided:
            unguided, towards = noise.chunk(2)
            noise = unguided + prompt.guidance_scale * (towards - unguided)
        noisy = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generators} if noisy else {}
        stepped = self.scheduler.step(noise, time, latents, **extra)
        # LCM's has another name than the others'.
        estimate = getattr(stepped, "pred_original_sample", getattr(stepped, "denoised", None))
        return stepped.prev_sample, estimate

    def encode_image(self, image: Tensor) -> Tensor:
        """uint8 [3, height, width] -> its latents [channels, height, width]: the mode, so that nothing is drawn."""
        pixels = image.to(self.vae.device, self.vae.dtype)[None] / 127.5 - 1
        latents = self.vae.encode(pixels).latent_dist.mode()[0].float()
        mean, std = self._latent_statistics(latents)
        scaled: Tensor = (latents - mean) / std * self.vae.config.scaling_factor
        return scaled

    def decode(self, latents: Tensor) -> Tensor | None:
        """One image's latents [channels, height, width] -> uint8 [3, height, width]; None where a pixel is not finite.

        An image that overflows in half precision is decoded once more in fp32, and counted in `decodes_repeated`.
        """
        mean, std = self._latent_statistics(latents)
        latents = (latents / self.vae.config.scaling_factor * std + mean)[None]
        image = self._decoded(latents)
        dtype = self.vae.dtype
        if not image.isfinite().all() and latents.isfinite().all() and dtype != torch.float32:
            self.decodes_repeated += 1
            self.vae.float()
            try:
                with torch.compiler.set_stance(
                    "force_eager"
                ):  # compiling fp32 kernels would take longer than all images
                    image = self._decoded(latents)
            finally:
                self.vae.to(dtype)  # widening and narrowing again changes no weight
        if not image.isfinite().all():
            return None
        return (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)

    def _decoded(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0][0].float()
        return pixels

    def _latent_statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The latents' configured mean and standard deviation, [channels, 1, 1]; 0 and 1 where there are none."""
        config = self.vae.config
        mean, std = (getattr(config, key, None) for key in ("latents_mean", "latents_std"))
        if mean is None or std is None:
            return latents.new_tensor(0.0), latents.new_tensor(1.0)
        return latents.new_tensor(mean).view(-1, 1, 1), latents.new_tensor(std).view(-1, 1, 1)

    def _encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """[captions, tokens, width]: both encoders' last-but-one layers; [captions, width]: the second's projection."""
        states: list[Tensor] = []
        for tokenizer, encoder in zip(self._tokenizers, self._encoders, strict=True):
            limit = tokenizer.model_max_length
            for caption in captions:
                count = len(tokenizer(caption).input_ids)
                if count > limit:
                    raise InputError(
                        f"caption {caption!r} has {count} tokens, but the painter reads only {limit}",
                        code="caption_too_long",
                        hint="lower rewrite.max_caption_tokens in the profile",
                    )
            ids = tokenizer(list(captions), padding="max_length", max_length=limit, return_tensors="pt").input_ids
            encoded = encoder(ids.to(self.device), output_hidden_states=True)
            states.append(encoded.hidden_states[-2])
        return torch.cat(states, dim=-1), encoded.text_embeds

    def _empty_prompt(self, text: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """What guidance leads away from, one row each: zeros for SDXL base, else the encoded empty caption."""
        if self.zero_empty_prompt:
            return torch.zeros_like(text[:1]), torch.zeros_like(pooled[:1])
        return self._encode([""])


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer and residual blocks of a UNet or an autoencoder."""
    return [each for each in model.modules() if type(each).__name__ in _BLOCKS]


def embedded(unet: Any, text: Tensor, added: dict[str, Tensor]) -> dict[str, Tensor]:
    """`added`, the pooled text and sizes, with what `unet` makes of them in every step."""
    return added | {_EMBEDDED: unet.get_aug_embed(emb=text, encoder_hidden_states=text, added_cond_kwargs=added)}


def condition_once(unet: Any) -> None:
    """Has `unet` take the embedding of pooled text and sizes where it is given, and activate its conditioning once.

    As diffusers has it, each step embeds them anew, and each of its residual blocks applies the same activation to the
    same conditioning. The results are bit for bit those.
    """
    embed = unet.get_aug_embed

    def ready(emb: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: dict[str, Tensor]) -> Tensor | None:
        found = added_cond_kwargs.get(_EMBEDDED)
        return embed(emb, encoder_hidden_states, added_cond_kwargs) if found is None else found

    unet.get_aug_embed = ready
    residual = [each for each in unet.modules() if type(each).__name__ == "ResnetBlock2D"]
    if unet.time_embed_act is None and all(type(each.nonlinearity) is nn.SiLU for each in residual):
        unet.time_embed_act = nn.SiLU()
        for block in residual:
            block.skip_time_act = True


def _unfit(pipeline: Any) -> str | None:
    """Why this is not a text-to-image SDXL; diffusers also loads others of its family, without some of the parts."""
    parts = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "unet", "vae", "scheduler")
    absent = [part for part in parts if getattr(pipeline, part) is None]
    if absent:
        return f"it has no {' and no '.join(absent)}: SDXL has two text encoders with a tokenizer each"
    unet, vae = pipeline.unet.config, pipeline.vae.config
    if unet.addition_embed_type != "text_time":
        return "its UNet does not take pooled text and sizes, which SDXL's does"
    if (unet.in_channels, unet.out_channels) != (vae.latent_channels,) * 2:
        return (
            f"its UNet reads {unet.in_channels} channels and writes {unet.out_channels}, but its autoencoder's latents "
            f"have {vae.latent_channels}: it is not a text-to-image checkpoint"
        )
    width = sum(each.config.hidden_size for each in (pipeline.text_encoder, pipeline.text_encoder_2))
    if unet.cross_attention_dim != width:
        return f"its UNet reads texts of width {unet.cross_attention_dim}, but its text encoders write {width}"
    return None
