"""`make bench-store`: results recorded per second, start and status with a large database, files taken in, choosing.

Exits 1 where a target is missed.
"""

import argparse
import gc
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from imgdiffd.store import Store
from tests.benchmarks import choosing, dropping
from tests.benchmarks.asking import asking
from tests.benchmarks.mill import CHUNK, Mill, Milled, fill, first_dispatch_s, forget_cached, statements_counted
from tests.fakes.disk import available, faulty_disk

CORES = 2
STAGES = 7  # that a caption passes with the default profile
ROUNDS = 3
LEAST_ASKED = 100  # times, so that there is a p99
COUNTED = 300  # captions, and files, whose statements and syncs are counted


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, in the words that it is shown in; `met` is None without a target."""

    what: str
    value: str
    target: str = ""
    met: bool | None = None


def at_least(what: str, value: float, target: float, unit: str) -> Figure:
    """A figure that must not be below its target."""
    return Figure(what, f"{value:,.0f} {unit}", f"≥ {target:,.0f} {unit}", value >= target)


def at_most(what: str, value: float, target: float, unit: str) -> Figure:
    """A figure that must not be above its target."""
    return Figure(what, f"{value:,.3g} {unit}", f"≤ {target:,g} {unit}", value <= target)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store", description=__doc__)
    parser.add_argument("--captions", type=int, default=3000, help="that pass all stages (default: 3000)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="captions in the large database")
    parser.add_argument("--files", type=int, default=30_000, help="dropped into the inbox at once")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured (default: the temporary folder)")
    chosen = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))[-CORES:]
    os.sched_setaffinity(0, cores)
    figures: list[Figure] = []
    steps: list[Callable[[Path], Awaitable[list[Figure]]]] = [
        partial(_recording, captions=chosen.captions),
        partial(_large, rows=chosen.rows, captions=chosen.captions),
        partial(_dropping, files=chosen.files),
        _choosing,
        *([_counting] if available() else []),
    ]
    for step in steps:
        with tempfile.TemporaryDirectory(prefix="imgdiffd-bench-", dir=chosen.folder) as folder:
            figures += anyio.run(step, Path(folder), backend_options={"use_uvloop": True})  # as the daemon does
        gc.collect()
    _show(figures, len(cores))
    return 1 if any(each.met is False for each in figures) else 0


def _show(figures: list[Figure], cores: int) -> None:
    table = Table(f"on {cores} cores", "measured", "target", box=SIMPLE_HEAD, pad_edge=False)
    for each in figures:
        table.add_row(each.what, each.value, each.target + {None: "", True: " met", False: " MISSED"}[each.met])
    Console(width=120).print(table)


def _rates(where: str, rounds: list[Milled], *, target: float | None = None) -> list[Figure]:
    """Of the best round: what else the machine does only ever adds to a time."""
    rate = max(each.results / each.wall_s for each in rounds)
    cores = min(5000 * each.cpu_s / each.results for each in rounds)
    what = f"results a second {where}"
    return [
        Figure(what, f"{rate:,.0f} /s") if target is None else at_least(what, rate, target, "/s"),
        at_most("    cores that 5,000 a second take", cores, CORES, "cores"),
    ]


async def _recording(folder: Path, captions: int) -> list[Figure]:
    rounds = []
    for number in range(ROUNDS):
        async with Store.open(folder / f"state-{number}.db") as store:
            await fill(store, captions)
            rounds.append(await Mill(store, folder).run())
    return _rates(f"of {captions:,} captions", rounds, target=5000)


async def _large(folder: Path, rows: int, captions: int) -> list[Figure]:
    database = folder / "state.db"
    jobs = 10
    async with Store.open(database) as store:
        for number in range(jobs):
            await fill(store, rows // jobs, 1 + number * (rows // jobs))
    forget_cached(folder)
    started_s = await first_dispatch_s(folder)
    async with Store.open(database) as store:
        rounds = [await Mill(store, folder).run(lambda mill: mill.results >= captions * STAGES) for _ in range(ROUNDS)]
        mill = Mill(store, folder)
        async with asking(store, mill.scheduler, folder) as asked:
            await mill.run(lambda _: len(asked.seconds) >= LEAST_ASKED)
    return [
        at_most(f"from start to first batch, {rows:,} captions", started_s, 3, "s"),
        *_rates(f"among {rows:,} captions", rounds),
        at_most("    status over the socket meanwhile, p99", asked.p99_s * 1000, 100, "ms"),
    ]


async def _dropping(folder: Path, files: int) -> list[Figure]:
    dropping.drop(folder / "inbox", files)
    async with Store.open(folder / "state.db") as store:
        taken = await dropping.take(store, folder, files)
        async with asking(store, Mill(store, folder).scheduler, folder) as asked:
            while len(asked.seconds) < LEAST_ASKED:
                await anyio.sleep(1)
    return [
        at_most(f"{files:,} files dropped at once", taken.wall_s, 60, "s"),
        Figure("    status over the socket then, p99", f"{asked.p99_s * 1000:.3g} ms"),
    ]


async def _choosing(_: Path) -> list[Figure]:
    figures: list[Figure] = []
    targets = (("100,000 regions", 0.2), ("the paper's captions", 2.0))
    for (what, target), columns in zip(targets, choosing.drawn(), strict=True):
        judging, answering = choosing.answering_s(columns)
        counts = {"captions": len(columns), "boxes": len(columns.boxes["box"]), "regions": len(columns.regions["left"])}
        figures += [
            at_most(f"another profile's verdicts on {what}", judging, target, "s"),
            Figure("    both funnels and what is missing too", f"{answering:.3g} s"),
            Figure("    of so many", ", ".join(f"{number:,} {name}" for name, number in counts.items())),
        ]
    return figures


async def _counting(folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    dropping.drop(folder / "inbox", COUNTED)
    with faulty_disk() as disk, statements_counted() as statements:
        async with Store.open(folder / "state.db") as store:
            await fill(store, min(COUNTED, CHUNK))
            for what, work in (
                ("a result", Mill(store, folder).run),
                ("a file", partial(dropping.take, store, folder, COUNTED)),
            ):
                statements.clear()
                syncs, calls = disk.syncs, disk.calls
                await work()
                count = COUNTED * (STAGES if what == "a result" else 1)
                each = {
                    "transactions": statements["COMMIT"],
                    "syncs": disk.syncs - syncs,
                    "writes": disk.calls - calls,
                    "SQL statements": statements.total(),
                }
                shown = ", ".join(f"{number / count:.2f} {name}" for name, number in each.items())
                figures.append(Figure(f"{what} costs", shown))
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
