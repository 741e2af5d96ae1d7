"""How an export that is typed ends: what its data card is told, and what a person reads of its mix and its check."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from imgdiffd.errors import ExportError, visible

if TYPE_CHECKING:
    from imgdiffd.export.finishing import Finishing, Mixing
    from imgdiffd.store import MadeRow, Reader


_SHOWN = frozenset({"--json"})  # options that change what is printed, not what is written


def mixing_of(layout: str, others: Path | None, repeat: int | None, seed: int | None) -> "Mixing | None":
    """What --with asks for. Raises ExportError where the format is not mixed, or where --with is missing."""
    from imgdiffd.export.finishing import Mixing, refuse_mixing
    from imgdiffd.export.mixing import opened

    if others is None:
        if lonely := next(
            (name for name, value in (("--repeat", repeat), ("--seed", seed)) if value is not None), None
        ):
            raise ExportError(f"{lonely} is about a mix", hint="name the instruction set: --with MIX.json")
        return None
    refuse_mixing(layout)
    opened(others).close()  # refused now rather than after the work
    return Mixing(others, repeat or 1, seed or 0)


def finishing_of(
    reader: "Reader",
    made: Sequence["MadeRow"],
    layout: str = "release",
    options: Sequence[str] = (),
    mixing: "Mixing | None" = None,
    progress: Callable[[str, float], object] = lambda what, share: None,
) -> "Finishing":
    """The last step of an export of the jobs `made`, which the data card says was typed with `options`."""
    from imgdiffd.daemon.views import funnel_view
    from imgdiffd.export.card import About
    from imgdiffd.export.finishing import Finishing
    from imgdiffd.export.formats.table import FORMATS

    jobs = [row.job for row in made]
    bundles = (bundle for found in reader.bundles(jobs).values() for bundle in found)
    about = About(
        FORMATS[layout].about,
        " ".join(("export", *options)),
        [reader.profile_of(group) for group in dict.fromkeys(row.group for row in made)],
        list(bundles),
        funnel_view(reader.funnel(jobs)),
    )
    return Finishing(layout, about, mixing, progress)


def typed_options(context: typer.Context) -> Iterator[str]:
    """The options that were typed, without names of folders: those are this machine's alone."""
    for parameter in context.command.params:
        value: Any = context.params.get(parameter.name or "")
        option = parameter.opts[0]
        if option in _SHOWN or not option.startswith("--") or value in (None, False, parameter.default):
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            yield option
            if each is not True:
                yield each.name if isinstance(each, Path) else str(each)


def found(done: "Finishing") -> dict[str, Any]:
    """As `report`, for programs."""
    mixed = done.mixed
    return {
        "checked": {"records": done.checked.records, "images": done.checked.images},
        "originals": dict(done.counts.originals),
        "answers": dict(done.counts.letters),
        "mixed": mixed and {"own": mixed.own, "repeat": mixed.repeat, "others": mixed.others, "records": mixed.records},
    }


def report(done: "Finishing", folder: Path) -> None:
    """Say what the mix holds, what the check opened, and how even the sides are."""
    from imgdiffd.export.finishing import MIX
    from imgdiffd.export.formats.table import FORMATS

    if done.mixed and done.mixing:
        mixed = done.mixed
        times = f" {mixed.repeat} times" if mixed.repeat > 1 else ""
        print(
            visible(
                f"mixed: {mixed.own:,} samples for training{times} and {mixed.others:,} records of "
                f"{done.mixing.others.name}, {mixed.records:,} in {folder / MIX} ({mixed.size_bytes / 1e6:,.1f} MB)"
            )
        )
    trained = "; no answer holds </s>, ASSISTANT: or <image>" if FORMATS[done.layout].trains else ""
    balances = f"; {told}" if (told := done.counts.balances()) else ""
    records, images = (
        f"{number:,} {what}{'' if number == 1 else 's'}"
        for number, what in ((done.checked.records, "record"), (done.checked.images, "image"))
    )
    print(f"checked: {records}, {images} opened{trained}{balances}")
