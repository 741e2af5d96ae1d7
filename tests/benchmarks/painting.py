"""A Prompt-to-Prompt step against a plain step of the same batch and against the reference, which stores every map."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from imgdiffd.kernels import prompt_to_prompt
from imgdiffd.kernels.edits import Injection, edit_pairs
from imgdiffd.kernels.prompt_to_prompt import PairController
from imgdiffd.method.profile import Profile
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.pipeline import Role
from tests.benchmarks.materialised import StoredMaps
from tests.benchmarks.measuring import Figure, Ratio, Work, compare, flops_of, median_seconds, peak_bytes
from tests.benchmarks.workshop import Workshop

TOKENS = 77
CAPTIONS = ("a dog lies on the grass", "a cat lies on the grass")
SELF_FRACTION = 0.4


def tokenize(caption: str) -> list[int]:
    """A number for each word, a begin and an end mark around them."""
    return [1, *(2 + sum(map(ord, word)) for word in caption.split()), 0]


def drawn_injection(pairs: int, cross_fraction: float = 1.0) -> Injection:
    """One word replaced; self-attention injected in the first SELF_FRACTION of the steps."""
    return edit_pairs(
        [CAPTIONS] * pairs,
        tokenize,
        TOKENS,
        edit="refine",
        cross_fraction=cross_fraction,
        self_fraction=SELF_FRACTION,
        self_max_tokens=1024,
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """One guided step of `pairs` pairs: [unguided, guided] rows of sources, then targets."""

    pairs: int
    steps: int
    latents: Tensor
    time: Tensor
    text: Tensor
    inputs: dict[str, Any]
    injection: Injection

    @classmethod
    def drawn(cls, workshop: Workshop, pairs: int) -> "Batch":
        """Random latents and texts as `workshop`'s UNet takes them."""
        sizes, rows = workshop.sizes, 4 * pairs
        generator = torch.Generator().manual_seed(2)
        width, side = sizes.unet["cross_attention_dim"], sizes.unet["sample_size"]
        pooled = sizes.unet["projection_class_embeddings_input_dim"] - 6 * sizes.unet["addition_time_embed_dim"]

        def placed(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(workshop.device, workshop.dtype)

        text = placed(2 * pairs, TOKENS, width)
        added = {"text_embeds": placed(rows, pooled), "time_ids": torch.zeros_like(placed(rows, 6))}
        inputs = {
            "encoder_hidden_states": torch.cat([torch.zeros_like(text), text]),
            "added_cond_kwargs": added,
            "return_dict": False,
        }
        time = torch.tensor(500, device=workshop.device)
        return cls(pairs, sizes.steps, placed(rows, 4, side, side), time, text, inputs, drawn_injection(pairs))

    def step(self, unet: Any) -> Tensor:
        """The noise that `unet` predicts."""
        noise: Tensor = unet(self.latents, self.time, **self.inputs)[0]
        return noise

    @contextmanager
    def painting(self, control: PairController, step: int) -> Iterator[None]:
        """Inside, `control`'s UNet is at `step`."""
        whole = control.painting(self.text, None, guided=True, injection=self.injection, steps=self.steps)
        with torch.inference_mode(), whole:
            control.enter_step(step)
            yield


def ratios(workshop: Workshop, *, rounds: int = 7) -> Iterator[Ratio]:
    """Ours over plain and over the reference, in a step with both injections and in one with cross-injection alone."""
    unet, plain = workshop.unet(), workshop.unet()
    control, stock = PairController(unet), dict(plain.attn_processors)
    for pairs in workshop.sizes.batches:
        batch = Batch.drawn(workshop, pairs)
        options: dict[str, Any] = {"rounds": rounds, "flops": needed_flops, "peak": workshop.device}
        for at, what in ((0, "both injections"), (batch.steps - 1, "cross-injection")):
            name = f"Prompt-to-Prompt step, {what}, {pairs} pair{'s' * (pairs > 1)}"
            with batch.painting(control, at):
                yield compare(f"{name} / plain step", *_both(batch, unet, plain), target=1.0, **options)
                plain.set_attn_processor(StoredMaps(batch.injection, pairs, at, batch.steps, batch.text))
                yield compare(f"{name} / with stored maps", *_both(batch, unet, plain), **options)
                plain.set_attn_processor(dict(stock))


def _both(batch: Batch, unet: Any, plain: Any) -> tuple[Work, Work]:
    return (lambda: batch.step(unet)), (lambda: batch.step(plain))


def matmul_rate(workshop: Workshop) -> float:
    """Floating-point operations a second of a large square product on the device."""
    side = workshop.sizes.matrix
    one, other = (torch.randn(side, side, device=workshop.device).to(workshop.dtype) for _ in range(2))
    return 2 * side**3 / median_seconds(lambda: one @ other, rounds=9)


def needed_flops(work: Work) -> int:
    """Floating-point operations of one step, whichever kernel attends: nothing is counted that only pads."""
    attended = 0

    def counted(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        nonlocal attended
        attended += 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return v.new_zeros(*q.shape[:-1], v.shape[-1])

    with mock.patch.object(prompt_to_prompt, "attention", counted):
        counted_elsewhere = flops_of(work)
    return counted_elsewhere + attended


def shares(workshop: Workshop, *, rounds: int = 5) -> Iterator[Figure]:
    """Seconds of a run's mean step at each batch and in each way, and what part of the device's rate that is.

    The best way at the best batch reaches at least 45 %.
    """
    rate, found = matmul_rate(workshop), []
    yield Figure("matrix products", rate / 1e12, "TFLOP/s")
    for pairs in workshop.sizes.batches:
        batch, painter = Batch.drawn(workshop, pairs), Painter(workshop.sdxl(), pairs)
        flops = _mean(batch, painter, needed_flops)
        for way in ways(workshop, painter):
            name = f"step of {pairs} pair{'s' * (pairs > 1)}, {way}"
            seconds = _mean(batch, painter, lambda step: _settled(step, rounds))
            found.append(flops / seconds / rate)
            yield Figure(name, seconds, "s")
            yield Figure(f"{name}, of that rate", 100 * found[-1], "%")
        del painter
        workshop.release()
    yield Figure("step at its best, of that rate", 100 * max(found), "%", target=45)


def ways(workshop: Workshop, painter: Painter) -> Iterator[str]:
    """Has `painter` run in the way that each name says until the next is asked for; the last is a worker's own."""
    yield "eager"
    painter.graph_steps(workshop.notes.append)
    yield "graphed"
    painter.plain_steps()
    workshop.compiled({Role.PAINTER: painter})
    yield "compiled"
    painter.graph_steps(workshop.notes.append)
    yield "compiled and graphed"


def _mean(batch: Batch, painter: Painter, measure: Callable[[Work], float]) -> float:
    """What `measure` says of a step, weighted by how many steps have which injections."""
    found = 0.0
    for at, weight in ((0, SELF_FRACTION), (batch.steps - 1, 1 - SELF_FRACTION)):
        with batch.painting(painter._control, at):
            found += weight * measure(lambda: batch.step(painter.sdxl.unet))
    return found


def _settled(step: Work, rounds: int) -> float:
    """Seconds of `step`, after one that compiles and one that captures."""
    step(), step()
    return median_seconds(step, rounds)


def decoding(workshop: Workshop, *, rounds: int = 5) -> Iterator[Figure]:
    """Seconds of an image's decoding and encoding, eager and compiled."""
    painter = Painter(workshop.sdxl(), 1)
    sdxl, px = painter.sdxl, workshop.sizes.picture_px
    side = px // sdxl.pixels_per_latent
    latents = torch.randn(4, side, side).to(workshop.device)
    image = torch.zeros(3, px, px, dtype=torch.uint8, device=workshop.device)
    for way in ("eager", "compiled"):
        if way == "compiled":
            workshop.compiled({Role.PAINTER: painter})
        with torch.inference_mode():
            yield Figure(f"decoding an image, {way}", median_seconds(lambda: sdxl.decode(latents), rounds), "s")
            yield Figure(f"encoding an image, {way}", median_seconds(lambda: sdxl.encode_image(image), rounds), "s")


def peak_of_a_pair(workshop: Workshop, profile: Profile) -> Figure:
    """What a painter holds at most while it paints one pair, its weights among it: under 14 GB."""
    held: list[Painter] = []

    def paint() -> None:
        held.append(Painter(workshop.sdxl(), pairs_per_pass=1))
        few = profile.generate.model_copy(update={"picture_px": workshop.sizes.picture_px, "steps": 2})
        held[0].paint_pairs([PairPrompt(*CAPTIONS, seed=1)], few)

    figure = Figure("peak memory of a pair", peak_bytes(paint, workshop.device) / 1e9, "GB", target=14, at_most=True)
    held.clear()
    workshop.release()
    return figure
