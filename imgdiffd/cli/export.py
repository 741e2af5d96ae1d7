"""`imgdiffd export`: the finished samples of both products into one folder, as the dataset was published.

It owns the words after `export` and what lies beside the dataset; the formats are `imgdiffd.export`'s.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from imgdiffd.settings import load_settings

if TYPE_CHECKING:
    from imgdiffd.store import Reader

FORMATS = ("release",)
REPLACEMENT, REMOVAL = "replacement", "removal"
CONTACT_SHEET = "contact-sheet.png"


def run(arguments: argparse.Namespace) -> None:
    """Write what `arguments` name. Without a product, removal samples only where there are any, or were before."""
    from imgdiffd.store import Reader

    folder = load_settings(arguments.config).state_folder
    images = folder / "pictures"
    said = []
    with Reader.open(folder / "state.db") as reader:
        if arguments.product in {None, REPLACEMENT}:
            said.append(f"{_replacements(reader, arguments.job, images, arguments.folder)} samples")
        if arguments.product in {None, REMOVAL}:
            wanted = arguments.product == REMOVAL
            count = _removals(reader, arguments.job, images, arguments.folder, even_none=wanted)
            said += [f"{count} removal samples"] if count or wanted else []
    print(f"{' and '.join(said)} in {arguments.folder}")


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


def add_arguments(export: argparse.ArgumentParser) -> None:
    """The words after `export`."""
    export.add_argument("folder", type=Path)
    export.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    export.add_argument("--product", choices=(REPLACEMENT, REMOVAL), help="only this one (default: both)")
