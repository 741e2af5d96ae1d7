"""One repository of the hub at one commit: its files, which of them are here, and fetching one file."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]  # documented names

from imgdiffd import durable
from imgdiffd.hub.damage import damage
from imgdiffd.hub.refusals import ArrivedDamagedError

_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """One file: its name in the repository, its size in bytes and its `blob`.

    The blob's name is git's hash of the content, or the SHA-256 of a large file (`is_large`).
    """

    name: str
    size: int
    blob: str
    is_large: bool


@dataclass(frozen=True, slots=True)
class Repository:
    """A hub id at one commit. `wanted` are the names of the files that the bundle's roles read: each adds its own."""

    source: str
    revision: str | None
    commit: str
    files: dict[str, RepositoryFile]
    wanted: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """Its folder in the cache (blobs, snapshots and refs, as huggingface_hub documents them)."""
        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.source, repo_type="model")

    def lacking(self) -> list[RepositoryFile]:
        """The wanted files that are not here whole, small ones first: where all weights are, everything is."""
        wanted = [self.files[name] for name in self.wanted]
        lacking = [file for file in wanted if not _is_whole(self._pointer(file), file)]
        return sorted(lacking, key=lambda file: (file.is_large, file.name))

    def blob_path(self, file: RepositoryFile) -> Path:
        """Where the cache keeps the file's bytes."""
        return self.folder / "blobs" / file.blob

    def bytes_to_fetch(self, file: RepositoryFile) -> int:
        """How many bytes of a lacking file are not here yet."""
        if _is_whole(self.blob_path(file), file):
            return 0
        partial = self._partial(file)
        size = partial.stat().st_size if file.is_large and partial.is_file() else 0
        return file.size - size if size <= file.size else file.size

    def fetch(self, file: RepositoryFile) -> None:
        """Put `file` into the snapshot. Raises the hub's and the transport's errors, OSError, ArrivedDamagedError."""
        pointer, blob = self._pointer(file), self.blob_path(file)
        for path in (pointer, blob):
            if not _is_whole(path, file):
                path.resolve().unlink(missing_ok=True)  # a snapshot's file is a link to a blob
                path.unlink(missing_ok=True)
        if file.is_large:
            lock = Path(constants.HF_HUB_CACHE) / ".locks" / self.folder.name / f"{file.blob}.lock"
            lock.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock):
                if not blob.exists():
                    self._transfer(file)
        hf_hub_download(self.source, file.name, revision=self.commit)  # only links a blob that is already here

    def name_commit(self) -> None:
        """Make the revision's name lead to this snapshot."""
        revision = self.revision or constants.DEFAULT_REVISION
        if revision == self.commit:
            return
        ref = self.folder / "refs" / revision
        durable.make_folder(ref.parent)
        durable.write({ref: self.commit})

    def _pointer(self, file: RepositoryFile) -> Path:
        return self.folder / "snapshots" / self.commit / file.name

    def _partial(self, file: RepositoryFile) -> Path:
        return self.folder / "blobs" / f"{file.blob}.incomplete"

    def _transfer(self, file: RepositoryFile) -> None:
        # huggingface_hub itself starts every file from the beginning: it discards what an interruption left.
        partial = self._partial(file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as out:
            if out.tell() > file.size:
                out.truncate(0)
            http_get(
                hf_hub_url(self.source, file.name, revision=self.commit),
                out,
                resume_size=out.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )
        with partial.open("rb") as whole:
            if hashlib.file_digest(whole, "sha256").hexdigest() != file.blob:
                partial.unlink()
                raise ArrivedDamagedError(f"{file.name} arrived damaged")
        durable.move(partial, self.blob_path(file))


def list_repository(source: str, revision: str | None) -> Repository:
    """What the hub has of `source` at `revision`. Raises the hub's own errors, ValueError without a commit."""
    api = HfApi()
    info = api.model_info(source, revision=revision, files_metadata=True, timeout=_ANSWER_S)
    if info.gated:
        api.auth_check(source)  # the list of a gated repository is open, its files are not
    files = {}
    for each in info.siblings or ():
        blob = each.lfs.sha256 if each.lfs else each.blob_id
        if blob is not None:
            files[each.rfilename] = RepositoryFile(each.rfilename, each.size or 0, blob, each.lfs is not None)
    if info.sha is None:
        raise ValueError("the hub does not name its commit")
    return Repository(source, revision, info.sha, files)


def _is_whole(path: Path, file: RepositoryFile) -> bool:
    """Whether `path`, in a snapshot or among the blobs, can be all of `file`."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return not file.name.endswith(".safetensors") or damage(path) is None
