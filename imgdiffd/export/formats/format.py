"""What every format says of itself, and what its writer does."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from imgdiffd import durable
from imgdiffd.export.folder import ExportFolder
from imgdiffd.export.pictures import Picture, joined, two
from imgdiffd.export.sample import Sample, Split

Images = Literal["joined", "two"]
IMAGE_FOLDER = (
    "imgdiff"  # of all formats but the published one; no path may hold `ocr` or `VG_100K`, which MGM rewrites
)
_BAR = " (separated by the black vertical bar)"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a dataset goes and what of: samples of `kinds`, whose images are below `sources`, shown as `images` says.

    `sheet` is where a contact sheet goes if not into the folder.
    """

    folder: ExportFolder
    sources: Path
    kinds: Collection[str]
    images: Images
    sheet: Path | None = None


class DatasetWriter(Protocol):
    """Writes one dataset. Samples come in the order of the dataset, each once."""

    @property
    def names(self) -> Sequence[str]:
        """The files and folders that it may write at the top of the dataset's folder; a folder ends in /."""
        ...

    def pictures(self, sample: Sample) -> Sequence[Picture]:
        """The images that the sample needs."""
        ...

    def resume(self, identities: Iterable[tuple[Split, str]]) -> Mapping[Split, Sequence[str]]:
        """What an export that was interrupted has written for good: the first samples of each split.

        `identities` are all samples', which stand for all that is written of one, and are read as far as needed.
        """
        ...

    def add(self, sample: Sample, pictures: Sequence[Picture], jpegs: Sequence[bytes], identity: str) -> None:
        """Write a sample; `jpegs` has each of its pictures, or nothing if they are files of the dataset."""
        ...

    def finish(self) -> Mapping[str, durable.Content]:
        """The files that appear last and together, by name."""
        ...

    def close(self) -> None:
        """Give up what is open, whether the dataset is finished or not."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table of formats.

    `images` are the ways in which it can show a pair, the usual one first. `files` says whether its images are files
    of their own. `split` says whether it tells train and validation apart, and `trains` whether it is for trainers,
    which samples with some marks in their text would harm. `kinds` are those it takes, None for all.
    """

    about: str
    writer: Callable[[Target], DatasetWriter]
    images: tuple[Images, ...] = ("joined",)
    files: bool = True
    split: bool = True
    trains: bool = True
    kinds: Collection[str] | None = None


def pictures_of(sample: Sample, images: Images) -> tuple[Picture, ...]:
    """One joined image or two, called by the sample's key."""
    stem = f"{IMAGE_FOLDER}/{sample.key}"
    return joined(sample, stem) if images == "joined" else two(sample, stem)


def question_of(sample: Sample, images: Images) -> str:
    """The question, which speaks of a bar only where there is one."""
    return sample.question if images == "joined" else sample.question.replace(_BAR, "")
