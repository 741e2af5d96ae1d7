"""The painter: SDXL with Prompt-to-Prompt (paper, section 3.1), two captions in, two pictures out.

It owns loading, caption encoding, the denoising loop and decoding; it does not know attention, files or why these two
captions belong together.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from safetensors import SafetensorError
from torch import Tensor, nn

from imgdiffd.errors import BundleError, InputError, ProfileError, StageError
from imgdiffd.kernels.edits import Injection, refine
from imgdiffd.kernels.prompt_to_prompt import PairController
from imgdiffd.profile import Generate


@dataclass(frozen=True, slots=True)
class PairPrompt:
    """Two captions and the seed of the noise that their pictures share."""

    caption1: str
    caption2: str
    seed: int


class Painter:
    """An SDXL checkpoint, resident. `tokenizer` is the one that captions are counted with."""

    def __init__(self, pipeline: Any, device: torch.device, pairs_per_pass: int) -> None:
        """Takes the components out of a loaded `StableDiffusionXLPipeline`; its UNet stays ours (see `load`)."""
        self._device = device
        self._pairs_per_pass = pairs_per_pass
        self.tokenizer = pipeline.tokenizer
        self._tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2)
        self._encoders = tuple(each.to(device).eval() for each in (pipeline.text_encoder, pipeline.text_encoder_2))
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self._unet = pipeline.unet.to(device, memory_format=layout).eval()
        # SDXL's own decoder overflows in half precision and says so; a mended one does not need the upcast.
        vae = pipeline.vae.to(device).eval()
        self._vae = vae.float() if device.type == "cpu" or vae.config.force_upcast else vae
        self._pixels_per_latent = pipeline.vae_scale_factor
        self._scheduler = pipeline.scheduler
        self._zero_empty_prompt = bool(pipeline.config.force_zeros_for_empty_prompt)
        self._control = PairController(self._unet)

    @classmethod
    def load(
        cls,
        source: str,
        device: torch.device,
        dtype: torch.dtype,
        pairs_per_pass: int,
        *,
        revision: str | None = None,
        variant: str | None = None,
        vae: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Loads a folder or hub id in the diffusers format; safetensors only. `dtype` is the UNet's and the encoders'.

        `vae` is the folder or hub id of another autoencoder to take in place of the checkpoint's own. Raises
        BundleError where a part is missing, damaged, or not SDXL's.
        """
        parts: dict[str, Any] = {}
        try:
            if vae is not None:
                parts["vae"] = AutoencoderKL.from_pretrained(vae, dtype=dtype, use_safetensors=True)
            pipeline = StableDiffusionXLPipeline.from_pretrained(
                source,
                dtype=dtype,
                revision=revision,
                variant=variant,
                local_files_only=local_files_only,
                use_safetensors=True,
                add_watermarker=False,
                **parts,
            )
            return cls(pipeline, device, pairs_per_pass)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            hint = "give the folder or hub id of an SDXL checkpoint in the diffusers format, with safetensors"
            raise BundleError(f"painter {source}: {error}", hint=hint) from error

    def repeated_blocks(self) -> list[nn.Module]:
        """The UNet's transformer blocks: many of few shapes, which is what compiling pays for."""
        return [each for each in self._unet.modules() if type(each).__name__ == "BasicTransformerBlock"]

    @torch.inference_mode()
    def paint_pairs(self, pairs: Sequence[PairPrompt], generate: Generate) -> list[tuple[Tensor, Tensor]]:
        """The two pictures of each pair, uint8 [3, picture_px, picture_px] on the device.

        Paints in passes of exactly `pairs_per_pass` pairs, the last one filled up, so that a pair's pictures do not
        depend on what is painted with them. Raises InputError where a caption has more tokens than the painter reads,
        ProfileError for a picture size that it cannot paint, StageError where a picture is not finite.
        """
        if generate.picture_px % self._pixels_per_latent:
            step = self._pixels_per_latent
            raise ProfileError(
                f"generate.picture_px is {generate.picture_px}, which this painter cannot divide by {step}",
                hint=f"choose a multiple of {step}",
            )
        size = self._pairs_per_pass
        pictures: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(pairs), size):
            mates = list(pairs[start : start + size])
            painted = self._paint_pass(mates + mates[-1:] * (size - len(mates)), generate)
            pictures += painted[: len(mates)]
        return pictures

    def _paint_pass(self, pairs: Sequence[PairPrompt], generate: Generate) -> list[tuple[Tensor, Tensor]]:
        captions = [pair.caption1 for pair in pairs] + [pair.caption2 for pair in pairs]
        text, pooled = self._encode(captions)
        # One generator a picture, the same seed for both of a pair: they share the noise of schedulers that add it too.
        generators = [torch.Generator().manual_seed(pair.seed) for _ in range(2) for pair in pairs]
        latents = self._denoise(text, pooled, generators, generate, self._injection(pairs, text.shape[1], generate))
        pictures = [self._decode(each) for each in latents]
        for caption, picture in zip(captions, pictures, strict=True):
            if picture is None:
                raise StageError(
                    f"the painter's picture of {caption!r} is not finite",
                    hint="load it in bfloat16 or float32, or give it a VAE that does not overflow in half precision",
                )
        finished = [picture for picture in pictures if picture is not None]
        return list(zip(finished[: len(pairs)], finished[len(pairs) :], strict=True))

    def _encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """[captions, tokens, width]: both encoders' last-but-one layers; [captions, width]: the second's projection."""
        states: list[Tensor] = []
        for tokenizer, encoder in zip(self._tokenizers, self._encoders, strict=True):
            limit = tokenizer.model_max_length
            for caption in captions:
                count = len(tokenizer(caption).input_ids)
                if count > limit:
                    raise InputError(
                        f"caption {caption!r} has {count} tokens, the painter reads {limit}",
                        code="caption_too_long",
                        hint="lower rewrite.max_caption_tokens in the profile",
                    )
            ids = tokenizer(list(captions), padding="max_length", max_length=limit, return_tensors="pt").input_ids
            encoded = encoder(ids.to(self._device), output_hidden_states=True)
            states.append(encoded.hidden_states[-2])
        return torch.cat(states, dim=-1), encoded.text_embeds

    def _injection(self, pairs: Sequence[PairPrompt], tokens: int, generate: Generate) -> Injection | None:
        if generate.edit == "none":
            return None
        ids = [tuple(self.tokenizer(each).input_ids for each in (pair.caption1, pair.caption2)) for pair in pairs]
        injection = refine(
            [(source, target) for source, target in ids],
            tokens,
            cross_fraction=generate.cross_injection,
            self_fraction=generate.self_injection,
            self_max_tokens=generate.self_injection_max_tokens,
        )
        return injection.to(self._device)

    def _denoise(
        self,
        text: Tensor,
        pooled: Tensor,
        generators: list[torch.Generator],
        generate: Generate,
        injection: Injection | None,
    ) -> Tensor:
        """Latents [pictures, channels, height, width], fp32: the sources, then the targets."""
        guided = generate.guidance_scale > 1
        empty, empty_pooled = self._empty_prompt(text, pooled) if guided else (None, None)
        count, side = len(text), generate.picture_px // self._pixels_per_latent
        shape = (self._unet.config.in_channels, side, side)
        latents: Tensor = torch.stack([torch.randn(shape, generator=each) for each in generators]).to(self._device)
        px = float(generate.picture_px)
        sizes = torch.tensor([[px, px, 0, 0, px, px]], dtype=text.dtype, device=self._device)  # original, crop, target
        if empty is not None and empty_pooled is not None:
            text_rows = torch.cat([empty.expand(count, -1, -1), text])
            pooled = torch.cat([empty_pooled.expand(count, -1), pooled])
        else:
            text_rows = text
        conditions = {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}

        scheduler = self._scheduler
        scheduler.set_timesteps(generate.steps, device=self._device)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        noisy = "generator" in inspect.signature(scheduler.step).parameters
        extra = {"generator": generators} if noisy else {}
        latents = latents * scheduler.init_noise_sigma
        unguided_text = None if self._zero_empty_prompt else empty
        timesteps = scheduler.timesteps
        with self._control.painting(text, unguided_text, guided=guided, injection=injection, steps=len(timesteps)):
            for step, time in enumerate(timesteps):
                self._control.enter_step(step)
                rows = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
                noise = self._unet(
                    rows.to(self._unet.dtype),
                    time,
                    encoder_hidden_states=text_rows,
                    added_cond_kwargs=conditions,
                    return_dict=False,
                )[0].float()
                if guided:
                    unguided, towards = noise.chunk(2)
                    noise = unguided + generate.guidance_scale * (towards - unguided)
                latents = scheduler.step(noise, time, latents, **extra, return_dict=False)[0]
        return latents

    def _empty_prompt(self, text: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """What guidance leads away from, one row each: zeros for SDXL base, else the encoded empty caption."""
        if self._zero_empty_prompt:
            return torch.zeros_like(text[:1]), torch.zeros_like(pooled[:1])
        return self._encode([""])

    def _decode(self, latents: Tensor) -> Tensor | None:
        """One picture's latents -> uint8 [3, height, width]; None where it is not finite."""
        config = self._vae.config
        latents = latents[None] / config.scaling_factor
        if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
            mean, std = (
                latents.new_tensor(each).view(1, -1, 1, 1) for each in (config.latents_mean, config.latents_std)
            )
            latents = latents * std + mean
        picture: Tensor = self._vae.decode(latents.to(self._vae.dtype), return_dict=False)[0][0].float()
        if not picture.isfinite().all():
            return None
        return (picture / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
