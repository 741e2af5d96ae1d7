"""Writes a dataset into a folder: each sample's images first, the lists last, and then nothing older is left."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from imgdiffd import __version__
from imgdiffd.errors import ExportError
from imgdiffd.export.finishing import Finishing
from imgdiffd.export.folder import ExportFolder
from imgdiffd.export.formats.format import DatasetWriter, Images, Target
from imgdiffd.export.formats.table import FORMATS
from imgdiffd.export.pictures import ImageError, Picture, as_jpeg, stamps_of, time_of
from imgdiffd.export.sample import Choice, Sample, SampleSource, Split, samples
from imgdiffd.export.unfit import why_unfit

_BATCH = 16  # samples whose images are encoded side by side, and written with one sync of their folder
WITHOUT_IMAGES = "without images"
NOT_KEPT = 'whose images were not kept (keep_pictures = "all" keeps them)'


@dataclass(frozen=True, slots=True)
class Written:
    """What an export did: samples by kind, files of an older export removed, samples left out by reason."""

    samples: Mapping[str, int]
    removed: int
    left_out: Mapping[str, int]


def export_dataset(
    reader: SampleSource,
    images: Path,
    folder: Path,
    *,
    layout: str = "release",
    choice: Choice | None = None,
    shown: Images | None = None,
    sheet: Path | None = None,
    skip_missing: bool = False,
    finishing: Finishing | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> Written:
    """Write the chosen samples, or all, to `folder`, in the format `layout`; nothing of an older export is left there.

    `images` is the daemon's image folder. `shown` says how a pair is shown, the format's usual way where None; `sheet`
    is where the published format's contact sheet goes if not into `folder`. The lists appear last and together, so
    that a reader never sees a record without its images; killed midway, the next export continues. Equal samples give
    equal bytes, and memory does not grow with their number. `finishing` then mixes, checks and describes all of it.
    `progress` is told how many samples have been written.

    Raises ExportError, also for a missing image unless `skip_missing`, StoreError and OSError.
    """
    row, choice = FORMATS[layout], choice or Choice()
    shown = shown or row.images[0]
    if shown not in row.images:
        raise ExportError(f"the format {layout} has no images {shown}", hint=f"leave --images {shown} out")
    if row.kinds is not None and (other := [kind for kind in choice.kinds if kind not in row.kinds]):
        raise ExportError(
            f"the format {layout} has no place for the kind {other[0]}", hint=f"it has: {', '.join(row.kinds)}"
        )
    with (
        ExportFolder.claimed(folder) as held,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        closing(row.writer(Target(held, images, choice.kinds, shown, sheet))) as writer,
    ):
        held.own(writer.names, finishing.names if finishing else ())
        source = _Source(images, writer, f"{__version__} {layout} {shown}")
        export = _Export(held, source, writer, pool, files=row.files, skip_missing=skip_missing, progress=progress)
        chosen = partial(samples, reader, choice)
        done = writer.resume(_identities(chosen(), source, skip_missing, trains=row.trains))
        if finishing:
            export.noted = finishing.counts.note
        export.run(chosen(), {split: iter(each) for split, each in done.items()}, trains=row.trains)
        held.publish(writer.finish())
        if finishing:
            finishing.run(folder, held.files())
    return Written(export.written, held.removed, export.left_out)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A sample with its pictures, the time that their files are to have, and what stands for all of it."""

    sample: Sample
    pictures: Sequence[Picture]
    time_ns: Sequence[int]
    identity: str


@dataclass(frozen=True, slots=True)
class _Source:
    """The image folder, and what else decides what is written of a sample."""

    images: Path
    writer: DatasetWriter
    how: str

    def entry(self, sample: Sample) -> _Entry:
        """The sample with its pictures. Raises ImageError if one of its images is missing."""
        pictures = self.writer.pictures(sample)
        stamps = [stamps_of(self.images, [picture], sample) for picture in pictures]
        text = f"{self.how}{sample!r}{pictures}{stamps}".encode("utf-8", "surrogatepass")
        identity = hashlib.blake2b(text, digest_size=8).hexdigest()
        return _Entry(sample, pictures, [time_of(each) for each in stamps], identity)


def _identities(
    chosen: Iterator[Sample], source: _Source, skip_missing: bool, *, trains: bool
) -> Iterator[tuple[Split, str]]:
    """What stands for each sample that will be written, so far as one can tell without opening its images."""
    for sample in chosen:
        if trains and why_unfit(sample):
            continue
        try:
            yield sample.split, source.entry(sample).identity
        except ImageError as error:
            if not skip_missing and not not_kept(sample, error):
                raise


def not_kept(sample: Sample, error: ImageError) -> bool:
    """Whether the images are gone as those of rejects are, which `keep_pictures` need not keep."""
    return sample.box_style is not None and isinstance(error.__cause__, FileNotFoundError)


class _Export:
    """Takes samples through a writer. `written` counts them by kind, `left_out` the others by reason.

    `noted` is told each sample that is in the dataset.
    """

    def __init__(
        self,
        folder: ExportFolder,
        source: _Source,
        writer: DatasetWriter,
        pool: Executor,
        *,
        files: bool,
        skip_missing: bool,
        progress: Callable[[int], object],
    ) -> None:
        self.written: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.noted: Callable[[Sample], object] = lambda sample: None
        self._folder = folder
        self._source = source
        self._writer = writer
        self._pool = pool
        self._files = files
        self._skip_missing = skip_missing
        self._progress = progress

    def run(self, chosen: Iterator[Sample], done: Mapping[Split, Iterator[str]], *, trains: bool) -> None:
        """Write all of them but the first of each split, `done`, which are there already."""
        entries = self._fit(chosen, done, trains)
        while batch := list(islice(entries, _BATCH)):
            self._write(batch)
            self._progress(self.written.total())

    def _fit(self, chosen: Iterator[Sample], done: Mapping[Split, Iterator[str]], trains: bool) -> Iterator[_Entry]:
        for sample in chosen:
            if trains and (why := why_unfit(sample)):
                self.left_out[why] += 1
                continue
            try:
                entry = self._source.entry(sample)
            except ImageError as error:
                self._leave_out(sample, error)
                continue
            written = next(done.get(sample.split, iter(())), None)
            if written is None:
                yield entry
            elif written == entry.identity:
                self._count(sample)
            else:
                raise ExportError("samples were added while the export began", hint="type it again: it goes on")

    def _count(self, sample: Sample) -> None:
        self.written[sample.kind] += 1
        self.noted(sample)

    def _leave_out(self, sample: Sample, error: ImageError) -> None:
        """Count a sample whose images cannot be had, or raise the error that says so."""
        if not_kept(sample, error):
            self.left_out[NOT_KEPT] += 1
        elif self._skip_missing:
            self.left_out[WITHOUT_IMAGES] += 1
        else:
            raise error

    def _write(self, batch: Sequence[_Entry]) -> None:
        drawing: list[tuple[_Entry, list[Future[bytes] | None]]] = [
            (entry, [self._draw(entry, number) for number in range(len(entry.pictures))]) for entry in batch
        ]
        due: dict[str, Callable[[BinaryIO], None]] = {}
        whole: list[tuple[_Entry, list[bytes]]] = []
        for entry, drawn in drawing:
            try:
                jpegs = [None if each is None else each.result() for each in drawn]
            except ImageError as error:
                self._leave_out(entry.sample, error)
                continue
            if self._files:
                for picture, jpeg, time_ns in zip(entry.pictures, jpegs, entry.time_ns, strict=True):
                    if jpeg is not None:
                        due[picture.name] = partial(_write_dated, jpeg, time_ns)
                whole.append((entry, []))
            else:
                whole.append((entry, [jpeg for jpeg in jpegs if jpeg is not None]))
        if due:
            self._folder.add_images(due)
        for entry, inside in whole:
            for picture in entry.pictures if self._files else ():
                self._folder.keep(picture.name)
            self._writer.add(entry.sample, entry.pictures, inside, entry.identity)
            self._count(entry.sample)

    def _draw(self, entry: _Entry, number: int) -> Future[bytes] | None:
        """The JPEG to come, or None if the dataset has that file: it then has the time of its sources, to the ns."""
        picture = entry.pictures[number]
        target = self._folder.path / picture.name
        if self._files and target.exists() and target.stat().st_mtime_ns == entry.time_ns[number]:
            return None
        return self._pool.submit(as_jpeg, self._source.images, picture, entry.sample)


def _write_dated(data: bytes, changed_ns: int, file: BinaryIO) -> None:
    file.write(data)
    file.flush()  # a later write would set the time anew
    os.utime(file.fileno(), ns=(changed_ns, changed_ns))
