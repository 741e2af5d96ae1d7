"""Opens everything that an export wrote, as a trainer would, and says what would harm one."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from imgdiffd.errors import counted, visible
from imgdiffd.export.records import ReadRecord, records_of

SPOILING = ("</s>", "ASSISTANT: ", "<image>")  # in an answer: LLaVA learns nothing of it, or looks for another image
REWRITTEN = ("ocr", "VG_100K")  # in a path: MGM looks for another file
IMAGE_FOLDER = "imgdiff"
_BATCH = 256
_TOLD = 5


@dataclass(slots=True)
class Checked:
    """What was looked at, and what is wrong with it."""

    records: int = 0
    images: int = 0
    problems: list[str] = field(default_factory=list)

    def told(self) -> str:
        """The problems, the first of them word for word."""
        more = f"; and {len(self.problems) - _TOLD} more" if len(self.problems) > _TOLD else ""
        return visible("; ".join(self.problems[:_TOLD]) + more)


def check(
    folder: Path,
    lists: Iterable[str],
    images: Iterable[str],
    found: Callable[[str, str], object] = lambda name, digest: None,
    progress: Callable[[int], object] = lambda count: None,
) -> Checked:
    """Read the files `lists` and `images` below `folder`: every record, and every image to its last pixel.

    A record has as many marks as images, its answer nothing that spoils training, its paths nothing that is rewritten;
    its images are there. `found` is told each image's name and SHA-256, in order, `progress` how many were opened.
    Raises ExportError, OSError and ValueError for a list that cannot be read.
    """
    done = Checked()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name in lists:
            records = iter(records_of(folder / name))
            while batch := list(islice(records, _BATCH)):
                _check_records(folder, batch, done)
                inside = [image for each in batch for image in each.images if isinstance(image, bytes)]
                for problem in pool.map(_damage, inside):
                    done.images += 1
                    _note(done, name, problem)
                progress(done.images)
        for name, digest, problem in _opened(folder, images, pool):
            done.images += 1
            found(name, digest)
            _note(done, name, problem)
            if done.images % _BATCH == 0:
                progress(done.images)
    return done


def _check_records(folder: Path, records: Iterable[ReadRecord], done: Checked) -> None:
    for record in records:
        done.records += 1
        for problem in _problems(record, folder):
            _note(done, f"record {record.name}", problem)


def _problems(record: ReadRecord, folder: Path) -> Iterator[str]:
    marks = record.question.count("<image>")
    if marks != record.marks:
        yield f"it has {counted(marks, '<image>')} for {counted(len(record.images), 'image')}"
    for text in SPOILING:
        if text in record.answer:
            yield f"its answer holds {text.strip()}"
    if not record.answer.strip():
        yield "its answer is empty"
    for name in (each for each in record.images if isinstance(each, str)):
        for text in REWRITTEN:
            if text in name:
                yield f"its path {name} holds {text}"
        if not any((folder / place / name).is_file() for place in ("", IMAGE_FOLDER)):  # InternVL's are below theirs
            yield f"its image {name} is missing"


def _opened(folder: Path, files: Iterable[str], pool: ThreadPoolExecutor) -> Iterator[tuple[str, str, str]]:
    """Each image's name, its checksum, and what is wrong with it."""

    def look(name: str) -> tuple[str, str, str]:
        data = (folder / name).read_bytes()
        return name, hashlib.sha256(data).hexdigest(), _damage(data)

    ordered = iter(files)
    while batch := list(islice(ordered, _BATCH)):
        yield from pool.map(look, batch)


def _damage(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises any of them for a damaged file
        return f"cannot be opened: {error}"
    return ""


def _note(done: Checked, what: str, problem: str) -> None:
    if problem:
        done.problems.append(f"{what}: {problem}")
