"""Checkpoints that are one file behind a web address instead of a hub repository: where they are kept, and fetching."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from imgdiffd import durable

_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Download:
    """A file behind `url`, of `size` bytes, that goes to `path`."""

    url: str
    path: Path
    size: int

    @property
    def partial(self) -> Path:
        """Where its bytes are collected until all are there."""
        return self.path.with_name(f"{self.path.name}.incomplete")

    @property
    def bytes_there(self) -> int:
        """How many of its bytes need not be fetched again."""
        size = self.partial.stat().st_size if self.partial.is_file() else 0
        return size if size <= self.size else 0


def path_of(url: str) -> Path:
    """Where the file behind `url` is kept once it is fetched: in a folder of its own below HF_HOME."""
    from huggingface_hub import constants

    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(constants.HF_HOME) / "imgdiffd" / digest / url.rpartition("/")[2]


def folder_behind(url: str) -> Path | None:
    """The folder of the file behind `url`; None where it was not fetched."""
    path = path_of(url)
    return path.parent if path.is_file() else None


def plan_download(url: str) -> Download | None:
    """The download that `url` needs; None where the file is here whole. Raises the transport's errors, ValueError."""
    path = path_of(url)
    if zipfile.is_zipfile(path):
        return None
    answer = httpx.head(url, follow_redirects=True, timeout=_ANSWER_S)
    size = answer.headers.get("Content-Length", "")
    if not answer.is_success:
        raise ValueError(f"the server answers {answer.status_code}")
    if not size.isdigit():
        raise ValueError("the server does not say how large the file is")
    return Download(url, path, int(size))


def fetch(download: Download) -> None:
    """Fetch the bytes that are missing. Raises the transport's errors, OSError, ArrivedDamagedError."""
    from huggingface_hub.file_download import http_get

    from imgdiffd.hub.refusals import ArrivedDamagedError

    download.path.parent.mkdir(parents=True, exist_ok=True)
    with download.partial.open("ab") as out:
        if out.tell() > download.size:
            out.truncate(0)
        if out.tell() < download.size:
            http_get(
                download.url,
                out,
                resume_size=out.tell(),
                expected_size=download.size,
                displayed_filename=download.path.name,
            )
    if not zipfile.is_zipfile(download.partial):
        download.partial.unlink()
        raise ArrivedDamagedError(f"{download.path.name} arrived damaged: it is not a PyTorch checkpoint")
    durable.move(download.partial, download.path)
