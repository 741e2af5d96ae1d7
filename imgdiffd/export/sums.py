"""The checksums of an export's files, in the form that `sha256sum --check` reads."""

import hashlib
from pathlib import Path

NAME = "SHA256SUMS"


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex digits, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def line(name: str, digest: str) -> bytes:
    """The line of the file `name` below the folder of the sums."""
    return f"{digest}  {name}\n".encode()
