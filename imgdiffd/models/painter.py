"""The painter: SDXL with Prompt-to-Prompt (paper, section 3.1), two captions in, two images out."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from imgdiffd.errors import BundleError, InputError, StageError
from imgdiffd.kernels.edits import Injection, edit_pairs, injected_steps
from imgdiffd.kernels.prompt_to_prompt import PairController
from imgdiffd.kernels.step_graph import StepGraph
from imgdiffd.method.profile_sections import Generate
from imgdiffd.models.preview import LatentPreview
from imgdiffd.models.sdxl import Prompt, Sdxl


@dataclass(frozen=True, slots=True)
class PairPrompt:
    """Two captions and the seed of the noise that their images share."""

    caption1: str
    caption2: str
    seed: int


Images = tuple[Tensor, Tensor]  # of a pair, uint8 [3, height, width]
Watch = Callable[[PairPrompt, Images], bool]  # a pair and its previews, of any size -> whether it is painted on


class Painter:
    """An SDXL checkpoint that paints pairs. `tokenizer` is the one that captions are counted with.

    Half-painted pairs are looked at through `preview`, if it is set.
    """

    def __init__(self, sdxl: Sdxl, pairs_per_pass: int, note: Callable[[str], None] = lambda _: None) -> None:
        """Puts Prompt-to-Prompt into the UNet of `sdxl`, which works as before for everyone else.

        `note` hears, once, why pairs cannot be looked at half-painted.
        """
        self.sdxl = sdxl
        self.preview: LatentPreview | None = None
        self._note, self._said = note, set[str]()
        self._pairs_per_pass = pairs_per_pass
        self.tokenizer = sdxl.tokenizer
        self._control = PairController(sdxl.unet)
        self._step_graph: StepGraph | None = None

    @classmethod
    def load(
        cls,
        source: str,
        device: torch.device,
        dtype: torch.dtype,
        pairs_per_pass: int,
        note: Callable[[str], None] = lambda _: None,
        **checkpoint: Any,
    ) -> Self:
        """Loads a folder or hub id in the diffusers format; `checkpoint` as in `Sdxl.load`, `note` as for the class.

        Raises BundleError with the reason where a part is missing, damaged, or not SDXL's.
        """
        sdxl = Sdxl.load(source, device, dtype, **checkpoint)
        try:
            return cls(sdxl, pairs_per_pass, note)
        except ValueError as error:
            raise BundleError(str(error), hint="name an SDXL checkpoint") from error

    def repeated_blocks(self) -> list[nn.Module]:
        """The blocks of UNet and text encoders: many with few shapes, which is worth compiling."""
        return self.sdxl.repeated_blocks()

    def graph_steps(self, say: Callable[[str], None]) -> None:
        """Captures the steps of a pass as CUDA graphs, one per phase of the injection; `say` hears if that fails."""
        unet = self.sdxl.unet
        self._step_graph = unet.forward = StepGraph("the painter", unet.forward, lambda: self._control.phase)
        self._step_graph.enable(say)

    def plain_steps(self) -> None:
        """Captures nothing from now on."""
        if self._step_graph is not None:
            self._step_graph.disable()

    def paint_pairs(self, pairs: Sequence[PairPrompt], generate: Generate) -> list[Images]:
        """The two images of each pair, uint8 [3, picture_px, picture_px] on the device.

        Paints in passes of exactly `pairs_per_pass` pairs, the last one filled up, so that a pair's images do not
        depend on the other pairs of its pass. Raises InputError where a caption has more tokens than the painter reads,
        ProfileError for an image size that it cannot paint, StageError where an image is not finite.
        """
        return [images for images in self.paint_watched(pairs, generate, None) if images is not None]

    @torch.inference_mode()
    def paint_watched(
        self, pairs: Sequence[PairPrompt], generate: Generate, watch: Watch | None
    ) -> list[Images | None]:
        """As `paint_pairs`, with None for each pair that `watch` gives up, half-painted.

        It is asked about every pair of a pass after the share `generate.abort.at` of the steps, and the pass ends there
        if no pair goes on. It is not asked about a preview that is not finite, nor where the bundle has no preview or
        the scheduler gives no estimate of the finished image: then the painter says so, once.
        """
        self.sdxl.check_size("generate.picture_px", generate.picture_px)
        if watch is not None and self.preview is None:
            self._say_blind("the bundle's painter has no preview; `imgdiffd models fit-preview` fits one")
            watch = None
        size = self._pairs_per_pass
        images: list[Images | None] = []
        for start in range(0, len(pairs), size):
            images += self._paint_pass(pairs[start : start + size], generate, watch)
        return images

    def _paint_pass(self, mates: Sequence[PairPrompt], generate: Generate, watch: Watch | None) -> list[Images | None]:
        size = self._pairs_per_pass
        pairs = [*mates, *[mates[-1]] * (size - len(mates))]
        captions = [pair.caption1 for pair in pairs] + [pair.caption2 for pair in pairs]
        prompt = self.sdxl.prompt(captions, generate.picture_px, generate.guidance_scale)
        # One generator per image, with one seed for both of a pair: they also share noise that schedulers add.
        generators = [torch.Generator().manual_seed(pair.seed) for _ in range(2) for pair in pairs]
        injection = self._injection(pairs, prompt.text.shape[1], generate)
        going = [True] * len(mates)

        def look(estimate: Tensor, watch: Watch) -> bool:
            for at, pair in enumerate(mates):
                previews = self._previews(estimate[at], estimate[size + at])
                going[at] = previews is None or watch(pair, previews)
            return any(going)

        latents = self._denoise(
            prompt, generators, generate, injection, None if watch is None else partial(look, watch=watch)
        )
        return [
            self._finished(pair, latents[at], latents[size + at]) if going[at] else None
            for at, pair in enumerate(mates)
        ]

    def _finished(self, pair: PairPrompt, latents1: Tensor, latents2: Tensor) -> Images:
        images = []
        for caption, latents in ((pair.caption1, latents1), (pair.caption2, latents2)):
            image = self.sdxl.decode(latents)
            if image is None:
                raise StageError(
                    f"the painter's image of {caption!r} is not finite",
                    hint="load it in bfloat16 or float32, or give it a VAE that does not overflow in half precision",
                )
            images.append(image)
        return images[0], images[1]

    def _previews(self, estimate1: Tensor, estimate2: Tensor) -> Images | None:
        assert self.preview is not None
        first, second = self.preview(estimate1), self.preview(estimate2)
        return None if first is None or second is None else (first, second)

    def _say_blind(self, why: str) -> None:
        if why not in self._said:
            self._said.add(why)
            self._note(f"half-painted pairs cannot be looked at, so none is given up early: {why}")

    def _injection(self, pairs: Sequence[PairPrompt], tokens: int, generate: Generate) -> Injection | None:
        if generate.edit == "none" and not generate.reweight:
            return None
        try:
            return edit_pairs(
                [(pair.caption1, pair.caption2) for pair in pairs],
                lambda caption: self.tokenizer(caption).input_ids,
                tokens,
                edit=generate.edit,
                cross_fraction=generate.cross_injection,
                self_fraction=generate.self_injection,
                self_max_tokens=generate.self_injection_max_tokens,
                reweight=generate.reweight,
                word_spans=generate.word_steps,
            )
        except ValueError as error:
            raise InputError(
                f"edit {generate.edit}: {error}",
                code="captions_not_aligned",
                hint="edit refine without words aligns any",
            ) from error

    def _denoise(
        self,
        prompt: Prompt,
        generators: list[torch.Generator],
        generate: Generate,
        injection: Injection | None,
        look: Callable[[Tensor], bool] | None,
    ) -> Tensor:
        """Latents [images, channels, height, width], fp32: the sources, then the targets.

        At one step `look` gets the estimate of the finished ones; if it returns False, these latents are not finished.
        """
        sdxl, side = self.sdxl, generate.picture_px // self.sdxl.pixels_per_latent
        shape = (sdxl.unet.config.in_channels, side, side)
        latents: Tensor = torch.stack([torch.randn(shape, generator=each) for each in generators]).to(sdxl.device)
        times = sdxl.begin(generate.steps)
        at = generate.self_injection if generate.abort.at is None else generate.abort.at
        watched = max(1, injected_steps(at, len(times)))
        latents = latents * sdxl.scheduler.init_noise_sigma
        guided = prompt.unguided is not None
        unguided_text = None if sdxl.zero_empty_prompt else prompt.unguided
        painting = self._control.painting(
            prompt.text, unguided_text, guided=guided, injection=injection, steps=len(times)
        )
        with painting, self._step_graph.one_pass() if self._step_graph else nullcontext():
            for step, time in enumerate(times):
                self._control.enter_step(step)
                latents, estimate = sdxl.denoise(latents, time, prompt, generators)
                if look is None or step + 1 != watched:
                    continue
                if estimate is None:
                    kind = type(sdxl.scheduler).__name__
                    self._say_blind(f"the scheduler {kind} gives no estimate of the finished image")
                elif not look(estimate):
                    break
        return latents
