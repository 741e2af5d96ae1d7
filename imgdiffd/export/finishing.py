"""What an export does once its samples are written: mixes them, checks them, and says what they are."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from imgdiffd import __version__, durable
from imgdiffd.errors import ExportError, counted
from imgdiffd.export import card, croissant, sums
from imgdiffd.export.card import About
from imgdiffd.export.checking import Checked, check
from imgdiffd.export.counts import Counts
from imgdiffd.export.mixing import Mixed, mix
from imgdiffd.export.records import IMAGE_ENDS

MIX = "mix.json"
# The list of a format whose trainers read one list, which is mixed; of the others, what to do instead.
MIXED_LISTS = MappingProxyType({"llava": "llava.json", "mgm": "mgm.json"})
MIXED_BY_OTHERS = MappingProxyType(
    {
        "internvl": "put our entry of meta.json beside those of the other datasets",
        "trl": "give both to datasets.concatenate_datasets, and shuffle",
        "llama-factory": "name both in its --dataset",
        "swift": "name both in its --dataset",
        "data-juicer": "name both in dataset_path of its recipe",
    }
)


@dataclass(frozen=True, slots=True)
class Mixing:
    """Into which instruction set the samples for training are shuffled, how often each of them, in which order."""

    others: Path
    repeat: int = 1
    seed: int = 0


def refuse_mixing(layout: str) -> None:
    """Raise ExportError unless trainers read the format as one list that others can be mixed into."""
    if layout not in MIXED_LISTS:
        instead = MIXED_BY_OTHERS.get(layout, "choose --format llava or mgm")
        raise ExportError(f"the format {layout} is not mixed with --with", hint=instead)


@dataclass
class Finishing:
    """Ends an export in `layout`, and holds what it found: `mixed` without `mixing` stays None.

    `progress` is told what is being done, and the share of it that is done.
    """

    layout: str
    about: About
    mixing: Mixing | None = None
    progress: Callable[[str, float], object] = lambda what, share: None
    counts: Counts = field(default_factory=Counts)
    checked: Checked = field(default_factory=Checked)
    mixed: Mixed | None = None

    @property
    def names(self) -> Sequence[str]:
        """The files that it writes, at the top of the dataset's folder."""
        return (card.NAME, croissant.NAME, sums.NAME, *([MIX] if self.mixing else []))

    def run(self, folder: Path, files: Sequence[str]) -> None:
        """Mix, describe and check the `files` below `folder`, which are all of the dataset so far.

        Raises ExportError for what cannot be mixed, and where a trainer would be harmed; OSError.
        """
        lists = [name for name in files if not name.endswith(IMAGE_ENDS)]
        images = [name for name in files if name.endswith(IMAGE_ENDS)]
        if self.mixing:
            self.mixed = self._mix(folder, self.mixing)
        digests = {name: sums.sha256(folder / name) for name in lists}
        self._describe(folder, files, digests)
        made = [each for each in self.names if each != sums.NAME]

        def write(file: BinaryIO) -> None:
            for name in made:
                digests[name] = sums.sha256(folder / name)
            for name, digest in sorted(digests.items()):
                file.write(sums.line(name, digest))
            told = self._progress("images checked", len(images))
            self.checked = check(folder, lists, images, lambda name, digest: file.write(sums.line(name, digest)), told)
            if self.checked.problems:
                raise ExportError(
                    f"{folder}: {counted(len(self.checked.problems), 'problem')} in what was written: "
                    f"{self.checked.told()}",
                    hint="remove the images that are named and export again: they are made anew. Report a wrong record",
                )

        durable.write({folder / sums.NAME: write})

    def _progress(self, what: str, total: int) -> Callable[[int], object]:
        return lambda done: self.progress(what, done / max(total, done, 1))

    def _mix(self, folder: Path, mixing: Mixing) -> Mixed:
        return mix(
            folder / MIXED_LISTS[self.layout],
            mixing.others,
            folder / MIX,
            repeat=mixing.repeat,
            seed=mixing.seed,
            progress=lambda share: self.progress("mixing", share),
        )

    def _describe(self, folder: Path, files: Sequence[str], digests: dict[str, str]) -> None:
        text = card.card(self.about, self.counts, dict(_data_files(files)), self.mixed)
        about = {
            "name": "img-diff",
            "description": card.description(self.counts),
            "license": card.LICENCE,
            "version": __version__,
            "citeAs": card.CITATION,
            "url": "https://arxiv.org/abs/2408.04594",
        }
        described = croissant.describe(folder, [name for name in files if name != MIX], digests, about)
        durable.write(
            {
                folder / card.NAME: text,
                folder / croissant.NAME: json.dumps(described, ensure_ascii=False, indent=1) + "\n",
            }
        )


def _data_files(files: Sequence[str]) -> Iterator[tuple[str, str]]:
    """For each split, what `datasets.load_dataset` is to read: its Parquet files."""
    for split in ("train", "validation"):
        if any(name.startswith(f"data/{split}-") for name in files):
            yield split, f"data/{split}-*.parquet"
