"""What the benchmark leaves out: a pair painted as a worker paints it, eager, graphed and compiled, and its decoding.

At real size on CUDA; without, one eager pair at toy size, which tries the code alone.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from imgdiffd.kernels import attention
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Generate
from imgdiffd.models.loading import compile_models
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.models.sdxl import Sdxl
from imgdiffd.models.sources import silence
from imgdiffd.pipeline import Role
from tests.benchmarks.sizes import REAL, TINY
from tests.benchmarks.workshop import Workshop

ON_CUDA = torch.cuda.is_available()


def seconds(work: Callable[[], Any], rounds: int = 1) -> float:
    """The median time of `work`, run once before to warm up."""
    wait: Any = torch.cuda.synchronize if ON_CUDA else lambda: None
    work()
    took = []
    for _ in range(rounds):
        wait()
        began = time.perf_counter()
        work()
        wait()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def probe_decoding(sdxl: Sdxl, picture_px: int) -> None:
    """Prints an image's decoding time, in torch's default memory layout and with channels last."""
    side = picture_px // sdxl.pixels_per_latent
    latents = torch.randn(4, side, side, device=sdxl.device)
    print(f"decode: {seconds(lambda: sdxl.decode(latents), 5):.3f} s", end=" ")
    sdxl.vae.to(memory_format=torch.channels_last)
    print(f"channels_last {seconds(lambda: sdxl.decode(latents), 5):.3f} s", flush=True)


def probe_pairs(painter: Painter, generate: Generate, count: int) -> None:
    """Prints the seconds a pair of passes of `count` pairs, each way that this device has."""
    pairs = [PairPrompt("a dog lies on the grass", "a cat lies on the grass", seed) for seed in range(count)]
    notes: list[str] = []

    def told(way: str) -> None:
        took = seconds(lambda: painter.paint_pairs(pairs, generate)) / count
        print(f"{count} pair(s), {way}: {took:.3f} s a pair", *notes, flush=True)

    told("eager")
    if not ON_CUDA:
        return
    painter.graph_steps(notes.append)
    told("graphed")
    painter.plain_steps()
    began = time.perf_counter()
    compile_models({Role.PAINTER: painter}, notes.append)
    painter.paint_pairs(pairs, generate)
    print(f"compiling took {time.perf_counter() - began:.0f} s", flush=True)
    told("compiled")
    painter.graph_steps(notes.append)
    told("compiled and graphed")
    peak, reserved = torch.cuda.max_memory_allocated() / 1e9, torch.cuda.max_memory_reserved() / 1e9
    print(f"peak {peak:.1f} GB, reserved {reserved:.1f} GB", flush=True)


def main() -> None:
    """Prints which kernels attend, then probes passes of one and of two pairs."""
    silence()
    device = torch.device("cuda:0" if ON_CUDA else "cpu")
    if ON_CUDA:
        torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True  # as a worker sets them
    attention.choose("auto", device, print)
    print("attention:", attention.backend_for(device, torch.float16 if ON_CUDA else torch.float32))
    sizes = REAL if ON_CUDA else TINY
    changes = {"picture_px": sizes.picture_px, "steps": 50 if ON_CUDA else 4}
    generate = load_profile("default").generate.model_copy(update=changes)
    for count in (1, 2) if ON_CUDA else (1,):
        workshop = Workshop(sizes, device)
        painter = Painter(workshop.sdxl(), count)
        with torch.inference_mode():
            if ON_CUDA:
                probe_decoding(painter.sdxl, sizes.picture_px)
            probe_pairs(painter, generate, count)
        del painter
        workshop.release()


if __name__ == "__main__":
    main()
