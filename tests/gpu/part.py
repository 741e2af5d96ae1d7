"""One part of the GPU benchmark alone: `python -m tests.gpu.part PART FOLDER` prints and keeps what it finds.

At real size on CUDA, at toy size without. Every figure is written as soon as it is known, since the machine may be
taken away at any moment.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from imgdiffd.method.profile import load_profile
from imgdiffd.models.sources import silence
from tests.benchmarks import __main__ as benchmark
from tests.benchmarks import answering, cropping, painting
from tests.benchmarks.sizes import REAL, TINY
from tests.benchmarks.workshop import Workshop

PARTS = ("steps", "decoding", "memory", "p2p", "crops", "language", "stages")


def figures(part: str, workshop: Workshop, folder: Path) -> Iterator[Any]:
    """What `part`, one of PARTS, measures, one dataclass after the other."""
    profile = benchmark.at_size(load_profile("default"), workshop.sizes)
    on_cuda = workshop.device.type == "cuda"
    rounds = 5 if on_cuda else 1
    match part:
        case "steps":
            yield from painting.shares(workshop, rounds=rounds)
        case "decoding":
            yield from painting.decoding(workshop, rounds=rounds)
        case "memory":
            yield painting.peak_of_a_pair(workshop, profile)
        case "p2p":
            yield from painting.ratios(workshop, rounds=rounds)
        case "crops":
            count = 320 if on_cuda else 4
            yield from cropping.ratios(workshop.device, count=count, target=1 / 50, rounds=rounds)
        case "language":
            yield from answering.ratios(workshop, profile, rounds=min(rounds, 3))
        case "stages":
            yield from (table for _, table in benchmark.real_costs(workshop, profile, folder))
        case _:
            sys.exit(f"{part} is not a part of the benchmark: name one of {', '.join(PARTS)}")


def main(part: str, out: Path) -> None:
    """Measures `part` and writes `out`/`part`.json."""
    silence()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workshop = Workshop(REAL if device.type == "cuda" else TINY, device)
    found, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="imgdiffd-bench-") as folder:
        for figure in figures(part, workshop, Path(folder)):
            found.append(asdict(figure))
            print(f"{time.monotonic() - began:6.1f} s", figure, flush=True)
            (out / f"{part}.json").write_text(json.dumps(found, indent=1), "utf-8")
    print(*workshop.notes, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
