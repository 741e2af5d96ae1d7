"""Each role's model, built at a given size with random weights on a device, from this checkout alone."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from unittest import mock

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import (
    BlipImageProcessor,
    CLIPImageProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
)

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.kernels.compile import compile_blocks
from imgdiffd.kernels.crop import CropPlan
from imgdiffd.method.profile import Profile
from imgdiffd.mini.tokenizer import build_tokenizer
from imgdiffd.models import loading
from imgdiffd.models.blip import Blip
from imgdiffd.models.captioner import Captioner
from imgdiffd.models.clip import Clip
from imgdiffd.models.loading import Models
from imgdiffd.models.painter import Painter
from imgdiffd.models.rewriter import Rewriter
from imgdiffd.models.sdxl import Sdxl
from imgdiffd.models.segmenter import Segmenter
from imgdiffd.pipeline import Role
from imgdiffd.worker.graph_checks import graph_steps
from imgdiffd.worker.warm_up import warm_up
from tests.benchmarks.sizes import Sizes
from tests.reference import real_size
from tests.reference.real_size import Config
from tests.tiny import models as tiny_models

T = TypeVar("T")


@dataclass(frozen=True)
class Workshop:
    """Builds models of `sizes` on `device`, in half precision on CUDA, with random weights made there."""

    sizes: Sizes
    device: torch.device
    notes: list[str] = field(default_factory=list)  # what models reported about themselves

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the models run in."""
        return torch.float16 if self.device.type == "cuda" else torch.float32

    def using(self, roles: frozenset[Role], work: Callable[[Models], T], profile: Profile | None = None) -> T:
        """The result of `work(models)` with the models of `roles`, which are released afterwards.

        With a `profile` they are compiled, warmed up for it and graphed, as a worker's are.
        """
        models = Models(build_tokenizer(), **{role.value: _BUILDERS[role](self) for role in roles})
        try:
            if profile is not None:
                self.compiled({role: getattr(models, role.value) for role in roles})
                with torch.inference_mode():
                    warm_up(models, profile, self.device, lambda _: None, self.notes.append)
                    graph_steps(models, profile, self.device, lambda _: None, self.notes.append)
            return work(models)
        finally:
            del models
            self.release()

    def compiled(self, models: Mapping[Role, Any]) -> None:
        """Has the blocks of `models` compiled as a worker's are; off CUDA without a back end, to try the code alone."""
        torch._dynamo.reset()
        backend = "inductor" if self.device.type == "cuda" else "eager"
        with mock.patch.object(loading, "compile_blocks", partial(compile_blocks, backend=backend)):
            loading.compile_models(models, self.notes.append)

    def release(self) -> None:
        """Gives back the GPU memory of models that are no longer held."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def made(self, build: Callable[..., Any], *configs: Config) -> Any:
        """The model that `build` makes, created on the device."""
        torch.manual_seed(1)
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with torch.device(self.device):
                return build(*configs)
        finally:
            torch.set_default_dtype(before)

    def unet(self) -> Any:
        """A UNet alone, laid out as the painter lays it out."""
        layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        unet = self.made(lambda config: UNet2DConditionModel(**config), self.sizes.unet)
        return unet.to(memory_format=layout).eval().requires_grad_(False)

    def sdxl(self) -> Sdxl:
        """A whole SDXL."""
        sizes, tokenizer = self.sizes, build_tokenizer()
        ends = {"eos_token_id": tokenizer.eos_token_id}
        parts = self.made(
            real_size.sdxl_parts, sizes.unet, sizes.vae, sizes.text_encoder | ends, sizes.text_encoder_2 | ends
        )
        schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        return Sdxl(
            StableDiffusionXLPipeline(
                **{name: part.requires_grad_(False) for name, part in parts.items()},
                tokenizer=tokenizer,
                tokenizer_2=tokenizer,
                scheduler=EulerDiscreteScheduler(**schedule, timestep_spacing="leading", steps_offset=1),
                add_watermarker=False,
            ),
            self.device,
        )

    def painter(self) -> Painter:
        """A painter with the passes of the bundle."""
        return Painter(self.sdxl(), load_bundle(self.sizes.bundle).painter.pairs_per_pass)

    def language_model(self) -> Any:
        """The rewriter's LLM."""
        return self.made(real_size.language_model, self.sizes.rewriter).eval().requires_grad_(False)

    def rewriter(self) -> Rewriter:
        """A rewriter of as many captions at once as are measured."""
        return Rewriter(self.language_model(), tiny_models.tokenizer(4096, tiny_models.CHAT), self.sizes.rewrites)

    def image_text_to_text_model(self) -> Any:
        """The captioner's LLaVA-NeXT."""
        config = self.sizes.captioner | {"image_token_index": tiny_models.SPECIAL.index("<image>")}
        return self.made(real_size.image_text_to_text_model, config).eval().requires_grad_(False)

    def processor(self) -> Any:
        """The captioner's processor."""
        config = self.sizes.captioner
        tile, patch = (config["vision_config"][key] for key in ("image_size", "patch_size"))
        size = {"size": {"shortest_edge": tile}, "crop_size": {"height": tile, "width": tile}}
        return LlavaNextProcessor(
            LlavaNextImageProcessor(**size, image_grid_pinpoints=config["image_grid_pinpoints"]),
            tiny_models.tokenizer(4096),
            patch_size=patch,
            vision_feature_select_strategy="default",
            chat_template=tiny_models.IMAGE_CHAT,
            image_token="<image>",
            num_additional_image_tokens=1,
        )

    def captioner(self, model: Any = None, images: int | None = None) -> Captioner:
        """A captioner of `images` images at once; as many as the bundle's unless given."""
        images = images or load_bundle(self.sizes.bundle).captioner.rows_per_pass
        chosen = self.image_text_to_text_model() if model is None else model
        return Captioner(chosen, self.processor(), images, self.notes.append)

    def clip(self) -> Clip:
        """A CLIP with its preprocessing."""
        ends = {"eos_token_id": 2}
        config = self.sizes.clip | {"text_config": self.sizes.clip["text_config"] | ends}
        model = self.made(real_size.clip_model, config).eval().requires_grad_(False)
        plan = CropPlan.from_image_processor(CLIPImageProcessor())
        return Clip(model, tiny_models.tokenizer(77, ends=True), plan)

    def blip(self) -> Blip:
        """A BLIP with its preprocessing."""
        model = self.made(real_size.blip_model, self.sizes.blip).eval().requires_grad_(False)
        plan = CropPlan.from_image_processor(BlipImageProcessor(size={"height": 384, "width": 384}))
        return Blip(model, tiny_models.tokenizer(512, ends=True), plan)

    def segmenter(self) -> Segmenter:
        """A FastSAM; built in single precision, as its checkpoints are opened."""
        torch.manual_seed(1)
        network = real_size.segmentation_model(self.sizes.segmenter)
        network.names, network.args = {0: "object"}, {}
        return Segmenter(network.float().eval(), self.device, border_px=20)


_BUILDERS: Mapping[Role, Callable[[Workshop], Any]] = {
    Role.REWRITER: Workshop.rewriter,
    Role.PAINTER: Workshop.painter,
    Role.SEGMENTER: Workshop.segmenter,
    Role.CLIP: Workshop.clip,
    Role.BLIP: Workshop.blip,
    Role.CAPTIONER: Workshop.captioner,
}
