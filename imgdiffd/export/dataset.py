"""Writes a dataset into a folder: each sample's images first, the lists last, and then nothing older is left."""

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from imgdiffd import durable
from imgdiffd.errors import ExportError
from imgdiffd.export import contact_sheet, release, removal
from imgdiffd.export.choice import BOTH
from imgdiffd.export.contact_sheet import ContactSheet
from imgdiffd.export.folder import ExportFolder
from imgdiffd.export.sample import SampleSource
from imgdiffd.method.removal import RemovalSample
from imgdiffd.method.removal import record as removal_record
from imgdiffd.store import SampleRow

_BATCH = 16  # samples whose images are encoded side by side, and written with one sync of their folder
_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Written:
    """What an export did: samples of each product, files of an older export removed, samples left out."""

    samples: int
    removals: int
    removed: int
    left_out: int


def export_dataset(
    reader: SampleSource,
    images: Path,
    folder: Path,
    *,
    jobs: Collection[int] | None = None,
    products: Collection[str] = BOTH,
    sheet: Path | None = None,
    skip_missing: bool = False,
    progress: Callable[[int], object] = lambda count: None,
) -> Written:
    """Write the samples of `jobs`, or of all, to `folder`; remove what an older export wrote there and this did not.

    `images` is the daemon's image folder; `sheet` is where the contact sheet goes if not into `folder`. The lists
    appear last and together, so that a reader never sees a record without its images; killed midway, the next export
    continues. Equal samples give equal bytes. `progress` is told how many samples have been written. Without samples of
    object removal there is no list of them, unless `products` names nothing else.

    Raises ExportError, also for a missing image unless `skip_missing`, StoreError and OSError.
    """
    with ExportFolder.claimed(folder) as target, ThreadPoolExecutor(os.cpu_count()) as pool:
        writer = _Writer(target, images, pool, skip_missing, progress)
        lists: dict[Path, durable.Content] = {}
        if "replacement" in products:
            made = writer.with_images(map(_replacement, reader.samples(jobs)))
            lists[folder / release.JSON_NAME] = partial(_write_list, made)
            lists[sheet or folder / contact_sheet.NAME] = writer.sheet.save
        removals = map(_removal, (row.sample for row in reader.removal_samples(jobs)) if "removal" in products else ())
        first = next(removals, None)
        if first is not None or "replacement" not in products:
            made = writer.with_images(chain([first] if first else [], removals))
            lists[folder / removal.JSON_NAME] = partial(_write_list, made)
        durable.write(lists)
        removed = target.remove_rest(writer.kept | {path.name for path in lists if path.parent == folder})
    counts = Counter(path.partition("/")[0] for path in writer.kept)
    return Written(counts[release.IMAGE_FOLDER], counts[removal.IMAGE_FOLDER], removed, writer.left_out)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A sample under its path in the dataset; `left` and `right` are its images below the daemon's image folder."""

    sample: SampleRow | RemovalSample
    item: int
    path: str
    record: Mapping[str, Any]
    left: str
    right: str


def _replacement(sample: SampleRow) -> _Entry:
    left, right = sample.left_image, sample.right_image
    return _Entry(sample, sample.item, release.sample_name(sample), release.record(sample), left, right)


def _removal(sample: RemovalSample) -> _Entry:
    path = removal.sample_name(sample)
    return _Entry(sample, sample.erasure.item, path, removal_record(sample, path), sample.left, sample.right)


def _write_list(entries: Iterable[_Entry], file: BinaryIO) -> None:
    """The records as `json.dumps` would write the whole list, but one by one."""
    between = b"[\n "
    for entry in entries:
        text = json.dumps(entry.record, ensure_ascii=False, indent=1).replace("\n", "\n ")
        file.write(between + text.encode())
        between = b",\n "
    file.write(b"[]\n" if between.startswith(b"[") else b"\n]\n")


class _ImageError(ExportError):
    """An image of a sample is missing or damaged."""


class _Writer:
    """Writes samples' images. `kept` are the paths of the samples that are in the dataset now."""

    def __init__(
        self, folder: ExportFolder, images: Path, pool: Executor, skip_missing: bool, progress: Callable[[int], object]
    ) -> None:
        self.kept: set[str] = set()
        self.left_out = 0
        self.sheet = ContactSheet(images)
        self._folder = folder
        self._images = images
        self._pool = pool
        self._skip_missing = skip_missing
        self._progress = progress

    def with_images(self, entries: Iterator[_Entry]) -> Iterator[_Entry]:
        """Each entry once its images are in the folder; without those whose images are missing, if so wanted."""
        while batch := list(islice(entries, _BATCH)):
            (self._folder.path / batch[0].path).parent.mkdir(exist_ok=True)
            drawing = [(entry, self._pool.submit(self._due, entry)) for entry in batch]
            due: dict[Path, durable.Content] = {}
            whole = []
            for entry, drawn in drawing:
                try:
                    due |= drawn.result()
                    whole.append(entry)
                except _ImageError:
                    if not self._skip_missing:
                        raise
                    self.left_out += 1
            if any(target.exists() for target in due):
                self._folder.withdraw()
            durable.write(due)
            for entry in whole:
                if isinstance(entry.sample, SampleRow):
                    self.sheet.note(entry.sample)
                self.kept.add(entry.path)
                yield entry
            self._progress(len(self.kept))

    def _due(self, entry: _Entry) -> dict[Path, durable.Content]:
        """The entry's JPEGs that are not in the folder yet. One that is has its source's time, to the nanosecond."""
        due: dict[Path, durable.Content] = {}
        for name, end in ((entry.left, "_0.jpg"), (entry.right, "_1.jpg")):
            target = self._folder.path / f"{entry.path}{end}"
            try:
                changed_ns = (self._images / name).stat().st_mtime_ns
                if not target.exists() or target.stat().st_mtime_ns != changed_ns:
                    due[target] = partial(_write_dated, _as_jpeg(self._images / name), changed_ns)
            except (OSError, SyntaxError, ValueError) as error:  # Pillow raises any of them for a damaged file
                what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
                raise _ImageError(
                    f"caption {entry.item}, sample {entry.path}: its image {self._images / name} {what}",
                    hint="no keep_pictures deletes a sample's images: restore it from a backup, or leave such samples "
                    "out with --skip-missing",
                ) from error
        return due


def _as_jpeg(source: Path) -> bytes:
    with Image.open(source) as image:
        if (image.format, image.mode) == ("JPEG", "RGB"):
            return source.read_bytes()  # of an imported dataset: written anew, it would lose by every export
        jpeg = io.BytesIO()
        image.convert("RGB").save(jpeg, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return jpeg.getvalue()


def _write_dated(data: bytes, changed_ns: int, file: BinaryIO) -> None:
    file.write(data)
    file.flush()  # a later write would set the time anew
    os.utime(file.fileno(), ns=(changed_ns, changed_ns))
