"""A caption file opened once: what it was at that moment, its hash, its captions in chunks, and what may go wrong."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from itertools import islice
from pathlib import Path

from imgdiffd.captions import Entry, read_open
from imgdiffd.errors import ImgdiffdError, InputError, first_line
from imgdiffd.job import CaptionProblem, CaptionRecord

CHUNK_RECORDS = 1000
CHUNK_CHARACTERS = 4_000_000
SMALL_BYTES = 1 << 16  # up to this, a file of one chunk is read at once and costs one change of the store

# What the machine lacks or a network folder does for a while: the file is innocent and is tried again.
PASSING = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EBUSY, errno.ENOBUFS}
    | {errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EREMOTEIO}
)
UNEXPECTED = "reader_failed"  # the code of a refusal behind which stands an error of ours

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Changes whenever a file's content does: the change time, unlike the modification time, cannot be set back."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Fingerprint":
        """The fingerprint in a stat result."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_renamed(self, other: "Fingerprint") -> bool:
        """Whether `other` may be of the same content under another name: renaming sets the change time."""
        return replace(self, changed_ns=0) == replace(other, changed_ns=0)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of a file; `last` where none follow."""

    records: tuple[CaptionRecord, ...]
    problems: tuple[CaptionProblem, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file that was hashed. `whole` is its whole content where that is one chunk and has no fault."""

    file: BufferedReader
    before: Fingerprint
    digest: str
    whole: Chunk | None

    def refuse_changed(self) -> None:
        """Raises InputError where the file has changed since it was opened."""
        if Fingerprint.of(os.fstat(self.file.fileno())) != self.before:
            raise _changed()


def refuse_kind(mode: int) -> None:
    """Raises InputError for anything but a regular file."""
    if stat.S_ISDIR(mode):
        hint = "move the caption files in it into the inbox, or send them with `imgdiffd submit FOLDER`"
        raise InputError("is a folder, not a caption file", code="not_a_file", hint=hint)
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise InputError(
            f"is {kind}, not a regular file", code="not_a_file", hint="put the caption file itself into the inbox"
        )


def open_regular(path: Path) -> BufferedReader:
    """`path` opened for reading, without following a link or waiting on a pipe.

    Raises InputError, or an OSError of the kinds in PASSING.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_kind(stat.S_IFLNK)
        if error.errno == errno.ENOENT:
            raise _changed() from error
        if error.errno in PASSING:
            raise
        hint = "make it readable for the user that imgdiffd runs as"
        raise InputError(f"cannot be opened: {error.strerror}", code="unreadable", hint=hint) from error
    file = open(descriptor, "rb")  # noqa: SIM115 - the caller closes it
    try:
        refuse_kind(os.fstat(descriptor).st_mode)
    except InputError:
        file.close()
        raise
    return file


def open_hashed(path: Path, name: str, field: str, expected: Fingerprint | None) -> OpenedFile:
    """`path` opened and hashed; `name` and `field` say how it is read.

    Raises InputError, with the code `changed` where it is not `expected` or changes meanwhile; OSError where it cannot
    be read.
    """
    file = open_regular(path)
    try:
        before = Fingerprint.of(os.fstat(file.fileno()))
        if expected not in (None, before):
            raise _changed()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if field:  # the same file read in another way has other captions
            digest = hashlib.sha256(f"{digest} {field}".encode("utf-8", "replace")).hexdigest()
        whole = _whole(file, name, field) if before.size <= SMALL_BYTES else None
        opened = OpenedFile(file, before, digest, whole)
        opened.refuse_changed()
    except BaseException:
        file.close()
        raise
    return opened


def next_chunk(stream: Iterator[Entry]) -> Chunk:
    """The next CHUNK_RECORDS records, fewer where they are long. Raises what reading raises."""
    records: list[CaptionRecord] = []
    problems: list[CaptionProblem] = []
    characters = 0
    for entry in islice(stream, CHUNK_RECORDS):
        if isinstance(entry, CaptionRecord):
            records.append(entry)
            characters += len(entry.text)
        else:
            problems.append(entry)
        if characters >= CHUNK_CHARACTERS:
            return Chunk(tuple(records), tuple(problems), False)
    return Chunk(tuple(records), tuple(problems), len(records) + len(problems) < CHUNK_RECORDS)


@contextmanager
def costs_only_its_file() -> Iterator[None]:
    """Make the refusal of one file of whatever is raised inside, an InputError.

    What trying again may help against stays what it is: an OSError of the kinds in PASSING, and every error of ours.
    """
    try:
        yield
    except ImgdiffdError:
        raise
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except OSError as error:
        if error.errno in PASSING:
            raise
        reason = f"cannot be read: {error.strerror or error}"
        raise InputError(reason, code="unreadable", hint="check the disk that it lies on") from error
    except Exception as error:
        hint = "the log has the whole story, for a report; write the captions one a line meanwhile"
        raise InputError(f"cannot be read: {first_line(error)}", code=UNEXPECTED, hint=hint) from error


def _whole(file: BufferedReader, name: str, field: str) -> Chunk | None:
    try:
        with costs_only_its_file(), closing(read_open(file, name, field)) as stream:
            chunk = next_chunk(stream)
    except InputError:  # raised again once the file has a job, which then fails with this reason
        return None
    return chunk if chunk.last else None


def _changed() -> InputError:
    return InputError("changed while it was read", code="changed", hint="it is taken again once it stops changing")
