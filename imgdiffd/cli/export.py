"""`imgdiffd export`: the finished samples of both products into one folder, as the dataset was published."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imgdiffd.cli.parameters import positive, settings_of

if TYPE_CHECKING:
    from imgdiffd.store import Reader

CONTACT_SHEET = "contact-sheet.png"


def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the dataset goes.")],
    _format: Annotated[Literal["release"], typer.Option("--format", help="The layout of the dataset.")] = "release",
    product: Annotated[
        Literal["replacement", "removal"] | None, typer.Option(help="Only this product; both where none is given.")
    ] = None,
    job: Annotated[int | None, typer.Option(metavar="JOB", parser=positive, help="Only this job.")] = None,
) -> None:
    """Write the dataset, with or without a running daemon.

    Without --product, samples of object removal are written where there are any, or were before.
    """
    from imgdiffd.store import Reader

    state = settings_of(context).state_folder
    images = state / "pictures"
    said = []
    with Reader.open(state / "state.db") as reader:
        if product != "removal":
            said.append(f"{_replacements(reader, job, images, folder)} samples")
        if product != "replacement":
            wanted = product == "removal"
            count = _removals(reader, job, images, folder, even_none=wanted)
            said += [f"{count} removal samples"] if count or wanted else []
    print(f"{' and '.join(said)} in {folder}")


def _replacements(reader: "Reader", job: int | None, images: Path, folder: Path) -> int:
    from imgdiffd.export.contact_sheet import write_contact_sheet
    from imgdiffd.export.release import export_release

    samples = list(reader.samples(job))
    count = export_release(samples, images, folder)
    write_contact_sheet(samples, images, folder / CONTACT_SHEET)
    return count


def _removals(reader: "Reader", job: int | None, images: Path, folder: Path, *, even_none: bool) -> int:
    from imgdiffd.export.removal import JSON_NAME, export_removals

    samples = list(reader.removal_samples(job))
    if not (samples or even_none or (folder / JSON_NAME).exists()):
        return 0
    return export_removals(samples, images, folder)
