"""`make bench` and `make bench-gpu`: every comparison once, as tables and as JSON. Exits 1 where a target is missed."""

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.models.loading import load_models
from imgdiffd.models.painter import PairPrompt
from imgdiffd.models.sources import silence
from imgdiffd.pipeline import OPTIONAL_ROLES, STAGES
from imgdiffd.schedulers.cost_table import CostTable
from imgdiffd.worker.engine import same_on_every_run
from tests.benchmarks import answering, counting, cropping, painting, stages, writing
from tests.benchmarks.counting import Count, Graphs
from tests.benchmarks.measuring import Figure, Ratio
from tests.benchmarks.report import Report
from tests.benchmarks.sizes import REAL, SMALL, TINY, Sizes
from tests.benchmarks.workshop import Workshop

BUILD = Path("build")
CPU = torch.device("cpu")
NO_GPU = 78  # the exit status of imgdiffd's commands for what is not set up
_DEMO = Path(__file__).parents[2] / "imgdiffd" / "captions" / "demo_captions.txt"
T = TypeVar("T")


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="at real size with random weights, in fp16 on a GPU")
    parser.add_argument("--tiny", action="store_true", help="at toy sizes and on any device, to try the code alone")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--out", type=Path, default=BUILD, metavar="FOLDER", help="where the JSON goes (default: build)"
    )
    chosen = parser.parse_args(arguments)
    if chosen.gpu and not chosen.tiny and not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}, but finds no GPU" if torch.version.cuda else "is a CPU build"
        print(f"bench-gpu needs a CUDA GPU of 80 GB and a torch that works on it: this torch {built}", file=sys.stderr)
        return NO_GPU
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as a worker has it
    same_on_every_run()
    torch.set_num_threads(chosen.threads)
    silence()
    with tempfile.TemporaryDirectory(prefix="imgdiffd-bench-") as folder:
        report = on_gpu(Path(folder), tiny=chosen.tiny) if chosen.gpu else on_cpu(Path(folder), tiny=chosen.tiny)
    report.show(Console(width=None if sys.stdout.isatty() else 120))
    file = chosen.out / ("bench-gpu.json" if chosen.gpu else "bench.json")
    tables = ", ".join(map(str, report.write(file))) or "no file"
    print(f"the same in {file}, the costs for `imgdiffd simulate` in {tables}")
    return 1 if report.missed else 0


@dataclass
class Sections:
    """Runs one part after the other; one that fails is reported, and the others still run."""

    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def all_of(self, name: str, found: Callable[[], Iterable[T]]) -> list[T]:
        """What `found` yields until it fails."""
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        kept: list[T] = []
        try:
            kept.extend(found())
        except Exception as error:  # torch, drivers and libraries raise nearly any type
            traceback.print_exc()
            self.failed.append(name)
            self.notes.append(f"{name} failed: {type(error).__name__}: {error}")
        return kept


def on_cpu(folder: Path, *, tiny: bool) -> Report:
    """What a CPU can measure: kernels and language models at a small size, the stages with the miniature bundle."""
    workshop, sections = Workshop(TINY if tiny else SMALL, CPU), Sections()
    rounds = 1 if tiny else 7
    ratios: list[Ratio] = [
        *sections.all_of("Prompt-to-Prompt", lambda: painting.ratios(workshop, rounds=rounds)),
        *sections.all_of("crops", lambda: cropping.ratios(CPU, count=4 if tiny else 48, rounds=rounds)),
        *sections.all_of(
            "language models", lambda: answering.ratios(workshop, load_profile("default"), rounds=1 if tiny else 3)
        ),
    ]
    px, paint_s = (64, 0.05) if tiny else (1024, 1.0)
    ratios += sections.all_of("the writing of images", lambda: writing.ratios(folder, picture_px=px, paint_s=paint_s))
    costs = sections.all_of("stages", lambda: [("mini", mini_costs(folder, 2 if tiny else 16, 1 if tiny else 3))])
    device = f"a CPU, threads: {torch.get_num_threads()}"
    notes = [*workshop.notes, *sections.notes]
    return Report(device, ratios, [], dict(costs), notes, sections.failed, *counts(sections, tiny))


def counts(sections: Sections, tiny: bool) -> tuple[list[Count], list[Graphs]]:
    """What a step and a decoding ask of a GPU; it takes none to count that, at real size too."""
    sizes = TINY if tiny else REAL

    def counted() -> Iterator[Count]:
        yield from counting.step_counts(sizes)
        yield counting.decode_count(sizes)
        yield from counting.preview_counts(sizes)

    return sections.all_of("counts", counted), sections.all_of("graphs", lambda: counting.compiled_graphs(sizes))


def mini_costs(folder: Path, captions: int, rounds: int) -> CostTable:
    """The stages' costs with the miniature bundle, all of whose models are held."""
    bundle = load_bundle("mini")
    roles = {role for spec in STAGES.values() for role in spec.roles} - OPTIONAL_ROLES
    models = load_models(bundle, roles, CPU, lambda _: None, compile=False)
    lines = _DEMO.read_text("utf-8").splitlines()[:captions]
    load = stages.Load(
        CPU,
        load_profile("mini"),
        folder,
        tuple(lines),
        tuple(PairPrompt(lines[0], lines[1], seed) for seed in range(bundle.painter.pairs_per_pass)),
        boxes=12,
        differing=4,
        rounds=rounds,
    )
    return stages.cost_table(lambda _, measure: measure(models), load, "CPU", "the miniature bundle")


def on_gpu(folder: Path, *, tiny: bool) -> Report:
    """Everything at real size, one model after the other, so that 80 GB are enough; at toy sizes where `tiny`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workshop, sections = Workshop(TINY if tiny else REAL, device), Sections()
    profile = at_size(load_profile("default"), workshop.sizes)
    rounds = 1 if tiny else 5
    figures: list[Figure] = [
        *sections.all_of("the step's share of the device's rate", lambda: painting.shares(workshop, rounds=rounds)),
        *sections.all_of("decoding", lambda: painting.decoding(workshop, rounds=rounds)),
        *sections.all_of("a pair's memory", lambda: [painting.peak_of_a_pair(workshop, profile)]),
    ]
    workshop.release()
    ratios: list[Ratio] = [
        *sections.all_of("Prompt-to-Prompt", lambda: painting.ratios(workshop, rounds=rounds)),
        *sections.all_of(
            "crops", lambda: cropping.ratios(device, count=4 if tiny else 320, target=1 / 50, rounds=rounds)
        ),
    ]
    workshop.release()
    ratios += sections.all_of("language models", lambda: answering.ratios(workshop, profile, rounds=1 if tiny else 3))
    workshop.release()
    costs = dict(sections.all_of("stages", lambda: real_costs(workshop, profile, folder)))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"
    notes = [*dict.fromkeys(workshop.notes), *sections.notes]
    return Report(name, ratios, figures, costs, notes, sections.failed, *counts(sections, tiny))


def real_costs(workshop: Workshop, profile: Profile, folder: Path) -> Iterator[tuple[str, CostTable]]:
    """Each bundle's stage costs with models of the workshop's sizes that run as a worker's, one stage's at a time."""
    name = torch.cuda.get_device_name() if workshop.device.type == "cuda" else "CPU"
    known: CostTable | None = None
    for bundle in workshop.sizes.language:
        sizes = replace(workshop.sizes, bundle=bundle)
        load = stages.Load(
            workshop.device,
            profile,
            folder,
            answering.CAPTIONS[: sizes.rewrites],
            tuple(PairPrompt(*painting.CAPTIONS, seed) for seed in range(load_bundle(bundle).painter.pairs_per_pass)),
            sizes.boxes,
            sizes.differing,
            images_at_once=load_bundle(bundle).captioner.rows_per_pass,
        )
        using = partial(replace(workshop, sizes=sizes).using, profile=profile)
        known = stages.cost_table(using, load, name, f"{sizes.name} size, random weights", known)
        yield bundle, known


def at_size(profile: Profile, sizes: Sizes) -> Profile:
    """`profile` with the size of images, the number of steps and the length of answers that are measured."""
    rewritten, described, contrasted = sizes.new_tokens
    return profile.model_copy(
        update={
            "generate": profile.generate.model_copy(update={"picture_px": sizes.picture_px, "steps": sizes.steps}),
            "rewrite": profile.rewrite.model_copy(update={"max_new_tokens": rewritten}),
            "describe": profile.describe.model_copy(update={"max_new_tokens": described}),
            "contrast": profile.contrast.model_copy(update={"max_new_tokens": contrasted}),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
