"""The resumable training loop of the small models: optimiser, schedule, average, checkpoints, atomic export."""

import argparse
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from imgdiffd import durable

BUNDLE = Path(__file__).parent / "bundle"
BUILD = Path("build/mini")
"""Where checkpoints and cached scenes are, relative to the directory that `make mini` runs in."""

SAVE_EVERY_S = 60.0
LOG_EVERY_STEPS = 50

Loss = Callable[[np.random.Generator, float], tuple[torch.Tensor, dict[str, float]]]
"""From a step's generator and the share of steps already done to the loss and the figures to print with it."""


def arguments(description: str, *, steps: int) -> argparse.ArgumentParser:
    """The options that every training script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=steps, help=f"optimiser steps in all (default {steps})")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    return parser


def start(options: argparse.Namespace) -> None:
    """Sets the thread count and the seed of torch's own generator, which draws the initial weights."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(20_408)


def save_atomically(state: Any, path: Path) -> None:
    """Writes a checkpoint; a run that is killed meanwhile leaves the former one whole."""
    durable.make_folder(path.parent)
    durable.write({path: lambda file: torch.save(state, file)})


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `target` when the block ends without an error."""
    part, old = (target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.old"))
    for folder in (part, old):
        shutil.rmtree(folder, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def train(
    name: str,
    model: nn.Module,
    loss_at: Loss,
    *,
    steps: int,
    lr: float,
    warmup: int = 100,
    weight_decay: float = 0.02,
    ema: float = 0.998,
) -> nn.Module:
    """Trains `model` up to step `steps`, continuing from `build/mini/<name>.pt`, and leaves its moving average in it.

    The batch of step n is drawn from a generator seeded with (name, n): a resumed run sees the same batches.
    """
    path = BUILD / f"{name}.pt"
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], int(state["step"])
    model.train()
    seed = int.from_bytes(name.encode()[:8].ljust(8, b"\0"), "big")
    saved = began = time.monotonic()

    def save(step: int) -> None:
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": step}
        save_atomically(state, path)

    for step in range(first, steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / warmup) * max(cosine, 0.02)
        loss, figures = loss_at(np.random.default_rng((seed, step)), step / steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(ema, (step + 1) / (step + 10))
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                average[key].lerp_(value.detach(), 1 - decay)
            else:
                average[key].copy_(value)
        if (step + 1) % LOG_EVERY_STEPS == 0:
            shown = " ".join(f"{key} {value:.4f}" for key, value in figures.items())
            pace = (step + 1 - first) / (time.monotonic() - began)
            print(f"{name} {step + 1}/{steps} loss {loss.item():.4f} {shown} {pace:.2f} it/s", flush=True)
        if time.monotonic() - saved > SAVE_EVERY_S:
            save(step + 1)
            saved = time.monotonic()
    if first < steps:
        save(steps)
    model.load_state_dict(average)
    return model.eval()
