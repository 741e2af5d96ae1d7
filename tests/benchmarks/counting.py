"""What painting asks of a GPU, counted without one: on fake CUDA tensors, which have shapes and no numbers."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from imgdiffd.kernels import attention
from imgdiffd.kernels.compile import compile_blocks
from imgdiffd.kernels.edits import Injection
from imgdiffd.kernels.prompt_to_prompt import PairController
from imgdiffd.models.sdxl import condition_once, embedded, repeated_blocks
from tests.benchmarks.measuring import Work
from tests.benchmarks.painting import TOKENS, Batch, drawn_injection
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.workshop import Workshop
from tests.reference import real_size

STEPS = 50
PHASES = {"both injections": 0, "cross-injection": 30, "neither": 45}  # a step of each, with cross_injection = 0.8
_MOVING = ("cat", "constant_pad_nd", "clone", "copy_", "_to_copy", "fill_")


@dataclass(frozen=True, slots=True)
class Count:
    """What one piece of work asks for: operations on the device, those among them that only move data, and so on."""

    what: str
    launches: int
    moves: int  # joins, pads, copies and fills
    bytes: int  # read and written by all launches
    flops: int


class Launches(TorchDispatchMode):
    """Counts the operations that run a kernel, at least one each: all that make or change a tensor's contents."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        views = all(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        if views or name in ("_unsafe_view", "device", "detach") or name.startswith(("empty", "new_empty")):
            return out
        self.by_name[name] += 1
        self.bytes += sum(each.numel() * each.element_size() for each in _tensors((args, out)))
        return out


def counted(what: str, work: Work) -> Count:
    """What one call of `work` asks for."""
    with FlopCounterMode(display=False) as flops, Launches() as launches:
        work()
    moves = sum(launches.by_name[name] for name in _MOVING)
    return Count(what, launches.by_name.total(), moves, launches.bytes, int(flops.get_total_flops()))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, CUDA tensors need no GPU; attention is torch's flash kernel."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention.default

    def fused(q: Tensor, k: Tensor, v: Tensor, *_: object, scale: float | None = None, **__: object) -> Tensor:
        out: Tensor = flash(q, k, v, scale=scale)[0]
        return out

    with (
        FakeTensorMode(),
        torch.no_grad(),
        mock.patch.object(functional, "scaled_dot_product_attention", fused),
        mock.patch.object(attention, "backend_for", return_value="sdpa"),
    ):
        yield


def on_fake_cuda(model: nn.Module) -> nn.Module:
    """`model`, built on the meta device, with fp16 weights on a fake GPU, laid out as the painter's."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            half = torch.empty(weight.shape, device="cuda", dtype=torch.float16)
            laid_out = half.to(memory_format=torch.channels_last) if half.ndim == 4 else half
            setattr(module, name, nn.Parameter(laid_out, requires_grad=False))
    return model.eval()


@dataclass(frozen=True, eq=False)
class _Decided(Injection):
    """An injection that is on fake tensors: nothing asks for numbers that they do not have."""

    def shares(self, opened: tuple[bool, ...]) -> tuple[Tensor, Tensor | None]:
        return torch.empty(self.carried.shape), torch.empty(self.kept.shape)


def step_counts(sizes: Sizes, pairs: int = 1) -> Iterator[Count]:
    """One call of the UNet in each phase of the injection, with `pairs` pairs in the pass."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**sizes.unet)
    plan = drawn_injection(pairs, cross_fraction=0.8)
    injection = _Decided(**{name: getattr(plan, name) for name in Injection.__dataclass_fields__})
    with fake_cuda():
        control, call = PairController(on_fake_cuda(unet)), _call(unet, sizes, pairs)
        text = call.keywords["encoder_hidden_states"][2 * pairs :]
        with control.painting(text, None, guided=True, injection=injection, steps=STEPS):
            for phase, step in PHASES.items():
                control.enter_step(step)
                yield counted(f"step, {phase}", call)


def _call(unet: Any, sizes: Sizes, pairs: int) -> partial[Any]:
    """A guided call of `unet`, with the pass's conditioning computed as the painter does."""
    condition_once(unet)
    rows, side, width = 4 * pairs, sizes.unet["sample_size"], sizes.unet["cross_attention_dim"]
    pooled = sizes.unet["projection_class_embeddings_input_dim"] - 6 * sizes.unet["addition_time_embed_dim"]

    def on_cuda(*shape: int) -> Tensor:
        return torch.empty(shape, device="cuda", dtype=torch.float16)

    latents, text = on_cuda(rows, 4, side, side), on_cuda(rows, TOKENS, width)
    added = embedded(unet, text, {"text_embeds": on_cuda(rows, pooled), "time_ids": on_cuda(rows, 6)})
    time = torch.empty((), device="cuda")
    return partial(unet, latents, time, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)


def decode_count(sizes: Sizes) -> Count:
    """The decoding of one image."""
    with torch.device("meta"):
        vae: Any = AutoencoderKL(**sizes.vae)
    side = sizes.unet["sample_size"]
    with fake_cuda():
        on_fake_cuda(vae)
        latents = torch.empty(1, 4, side, side, device="cuda", dtype=torch.float16)
        return counted("decoding an image", lambda: vae.decode(latents))


def preview_counts(sizes: Sizes) -> list[Count]:
    """Looking at a half-painted pair: CLIP's two images, and before that nothing that counts or a small autoencoder."""
    px, side = sizes.clip["vision_config"]["image_size"], sizes.unet["sample_size"]
    with torch.device("meta"), torch.no_grad():
        clip = real_size.clip_model(sizes.clip).half()
        vae: Any = AutoencoderTiny().half()  # whose own sizes are TAESDXL's
        crops, latents = (torch.empty(shape, dtype=torch.float16) for shape in ((2, 3, px, px), (2, 4, side, side)))
        return [
            counted("comparing a pair's previews", lambda: clip.get_image_features(pixel_values=crops)),
            counted("decoding them by TAESDXL", lambda: vae.decode(latents)),
        ]


@dataclass(frozen=True, slots=True)
class Graphs:
    """What compiling a model's repeated blocks takes.

    `graphs` serve all `blocks`; tracing them stopped `breaks` times at what is not compiled. Their matrix products and
    1×1 convolutions have `products` different shapes, for each of which "max-autotune" times several kernels.
    """

    what: str
    blocks: int
    graphs: int
    breaks: int
    products: int


def compiled_graphs(sizes: Sizes) -> Iterator[Graphs]:
    """A painter's UNet and decoder, compiled without a back end: nothing can run on tensors without numbers."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**sizes.unet).eval()
        vae: Any = AutoencoderKL(**sizes.vae).eval()
    batch = Batch.drawn(Workshop(sizes, torch.device("meta")), 1)
    with batch.painting(PairController(unet), 0):
        yield _graphs("UNet", unet, lambda: batch.step(unet))
        yield _graphs("decoder", vae.decoder, lambda: vae.decode(batch.latents[:1]))


def _graphs(what: str, model: nn.Module, work: Work) -> Graphs:
    traced: list[object] = []
    products: set[tuple[object, ...]] = set()

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        traced.append(graph)
        products.update(_products(graph))
        return graph.forward

    torch._dynamo.reset()
    counters.clear()
    blocks = repeated_blocks(model)
    compile_blocks(what, blocks, _raise, fixed_shapes=True, backend=backend)
    work()
    return Graphs(what, len(blocks), len(traced), sum(counters["graph_break"].values()), len(products))


def _products(graph: torch.fx.GraphModule) -> Iterator[tuple[object, ...]]:
    """The shapes of each matrix product's or 1×1 convolution's input and weights."""
    for node in graph.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if name in ("linear", "conv2d"):
            given, weight = (each.meta["example_value"].shape for each in node.args[:2])
            if name == "linear" or weight[2:] == (1, 1):
                yield name, tuple(given), tuple(weight)


def _raise(note: str) -> None:
    raise RuntimeError(note)
