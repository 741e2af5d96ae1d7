"""What a file is by its first bytes: compressed, a known format, or no caption file at all."""

import gzip
import io
import os
import re
import zlib
from typing import BinaryIO

from backports import zstd

from imgdiffd.captions.growth import refuse_growth
from imgdiffd.captions.records import EXAMPLE, printable
from imgdiffd.errors import InputError

PEEK_BYTES = 1 << 16
PARQUET = b"PAR1"
COMPRESSED_ENDINGS = (".gz", ".zst")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPED = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame without content, with which pzstd begins
_MAX_WINDOW_LOG = 26  # 64 MiB, which a decoder holds in memory; `zstd` itself stays below unless told otherwise

# Byte order marks; that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_OTHERS = (
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x89PNG\r\n", "a PNG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (4, b"ftyp", "a video or a HEIC image"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive or an office document"),
    (257, b"ustar", "a tar archive"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip archive"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"ARROW1", "an Arrow file"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x7fELF", "a program"),
    (0, _GZIP, "compressed more than once"),
    (0, _ZSTD, "compressed more than once"),
)


def refuse_other_kinds(start: bytes) -> None:
    """Raises InputError where a file that starts like this is known not to hold captions, or is not UTF-8."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            raise InputError(f"the file is {encoding}, not UTF-8", code="not_utf8", hint="save it as UTF-8")
    for at, magic, kind in _OTHERS:
        if start.startswith(magic, at):
            hint = f"send captions, as plain text, JSON, CSV or Parquet: {EXAMPLE}"
            raise InputError(f"the file is {kind}, not captions", code="not_captions", hint=hint)


class _Unpacked(io.RawIOBase):
    """The content of a compressed file, from its beginning on. Raises InputError where it is damaged or never ends."""

    def __init__(self, file: BinaryIO, name: str, content: "gzip.GzipFile | zstd.ZstdFile", packed_bytes: int) -> None:
        self._file = file
        self._name = name
        self._content = content
        self._at = 0
        self._packed_bytes = packed_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if (offset, whence) == (0, os.SEEK_SET):
            self._at = self._content.seek(0)
        elif (offset, whence) != (0, os.SEEK_CUR):
            raise io.UnsupportedOperation("a compressed file is read from its beginning on")
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._content.read(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
            reason = f"damaged or cut-off {self._name}: {printable(str(error))}"
            raise InputError(reason, code="bad_compression", hint="compress the file again") from error
        self._at += len(data)
        refuse_growth(self._packed_bytes, unpacked_bytes=self._at)
        buffer[: len(data)] = data
        return len(data)


def unpacked(file: BinaryIO) -> BinaryIO | None:
    """The content of an open file that gzip or zstd compressed; None for any other."""
    file.seek(0)
    start = file.read(len(_ZSTD))
    packed_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    if start.startswith(_GZIP):
        raw = _Unpacked(file, "gzip", gzip.GzipFile(fileobj=file, mode="rb"), packed_bytes)
    elif start == _ZSTD or _SKIPPED.fullmatch(start):
        options = {int(zstd.DecompressionParameter.window_log_max): _MAX_WINDOW_LOG}
        raw = _Unpacked(file, "zstd", zstd.ZstdFile(file, options=options), packed_bytes)
    else:
        return None
    return io.BufferedReader(raw, PEEK_BYTES)
