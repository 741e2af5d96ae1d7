"""`imgdiffd ablate`: the paper's ablation of thresholds from one run, with a dataset for each of its settings."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from imgdiffd.cli.parameters import positive, settings_of

if TYPE_CHECKING:
    from rich.table import Table

    from imgdiffd.choosing.ablation import RowTally
    from imgdiffd.method.messages import Box
    from imgdiffd.settings import Settings
    from imgdiffd.store import MadeRow, Reader, SampleRow

PROFILE = "table14"


def ablate(
    context: typer.Context,
    _table: Annotated[Literal["table14"], typer.Argument(metavar="TABLE", help="table14: four sets of thresholds.")],
    job: Annotated[int | None, typer.Option(metavar="JOB", parser=positive, help="Only this job.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a dataset for each setting: FOLDER/row-1 to row-4.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Cut the paper's four settings of thresholds (table 14) out of one run.

    The run is one under the profile table14, which is as loose as the loosest of them; without --job, every job of it.
    No device is needed, and no daemon. Beside what each setting keeps stands what the paper gained with it.
    """
    from imgdiffd.choosing.ablation import tally
    from imgdiffd.export.choice import choose_jobs
    from imgdiffd.export.folder import refuse_place
    from imgdiffd.store import Reader

    settings = settings_of(context)
    if out is not None:
        refuse_place(out, settings)
    with Reader.open(settings.database) as reader:
        made = reader.made()
        named = PROFILE if job is None and any(row.profile == PROFILE for row in made) else None
        chosen = choose_jobs(made, job=job, profile=named, kinds=("replacement",))
        found = tally(reader.stored([row.job for row in chosen]))
        if out is not None:
            _export(reader, settings, out, chosen, found)
    told = list(_rows(found))
    if as_json:
        print(json.dumps(told, indent=2))
        return
    from imgdiffd.cli.terminal import wide_console

    wide_console().print(_shown(told))
    if undescribed := max(row["undescribed"] for row in told):
        print(f"up to {undescribed} regions were never described: run the captions under the profile {PROFILE} for all")


class _Kept:
    """The samples of a setting among those of a reader, for an export."""

    def __init__(self, reader: "Reader", samples: "Collection[tuple[int, Box]]") -> None:
        self._reader = reader
        self._samples = samples

    def samples(self, jobs: Collection[int] | None = None) -> "Iterator[SampleRow]":
        """Those that the setting keeps."""
        return (row for row in self._reader.samples(jobs) if (row.item, row.box) in self._samples)

    def removal_samples(self, jobs: Collection[int] | None = None) -> Iterator[Any]:
        """None: the settings say nothing about object removal."""
        return iter(())

    def rejected_regions(self, jobs: Collection[int] | None = None) -> Iterator[Any]:
        """None: they are rejected by the run, not by the setting."""
        return iter(())


def _export(
    reader: "Reader", settings: "Settings", out: Path, chosen: "Sequence[MadeRow]", found: "Sequence[RowTally]"
) -> None:
    from imgdiffd.cli.ending import finishing_of
    from imgdiffd.export.dataset import export_dataset
    from imgdiffd.export.sample import Choice

    choice = Choice([row.job for row in chosen], ("replacement",))
    for each in found:
        finishing = finishing_of(reader, chosen)
        profiles = [each.setting.of(profile) for profile in finishing.about.profiles]
        finishing.about = replace(finishing.about, command="ablate table14", profiles=profiles, funnel=None)
        source = _Kept(reader, each.samples)
        folder = out / f"row-{each.setting.row}"
        export_dataset(source, settings.images, folder, choice=choice, finishing=finishing)


def _rows(found: "Sequence[RowTally]") -> Iterator[dict[str, Any]]:
    from imgdiffd.choosing.ablation import OURS

    ours = next(each for each in found if each.setting.row == OURS)
    for each in found:
        setting = each.setting
        yield {
            "row": setting.row,
            "is": [setting.above, setting.below],
            "bitm": setting.noun,
            "cs": setting.text,
            "citm": setting.match,
            "pairs": each.pairs,
            "regions": each.regions,
            "undescribed": each.undescribed,
            "samples": len(each.samples),
            "kept_of_row_3": each.kept_of(ours),
            "equal_texts": each.equal_share,
            "mean_citm": each.mean_match,
            "paper_delta_percent": setting.delta,
        }


def _shown(rows: Sequence[dict[str, Any]]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    heads = ("row", "IS", "BITM", "CS", "CITM", "pairs", "regions", "samples", "of row 3", "equal texts", "mean CITM")
    columns = [Column(head, justify="right", no_wrap=True) for head in (*heads, "paper: gain")]
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        low, high = row["is"]
        bounds = [f"{low:g}–{high:g}", *(f"{row[key]:g}" for key in ("bitm", "cs", "citm"))]
        counts = [f"{row[key]:,}" for key in ("pairs", "regions", "samples")]
        shares = [_share(row["kept_of_row_3"]), _share(row["equal_texts"])]
        mean = "–" if row["mean_citm"] is None else f"{row['mean_citm']:.3f}"
        table.add_row(f"({row['row']})", *bounds, *counts, *shares, mean, f"+{row['paper_delta_percent']:.2f} %")
    return table


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
