"""Fetches what a bundle names by hub id or web address: what the loaders read, going on where it stopped.

It owns the plan, the room on the disk and the transfer of large files; it does not know what is done with them.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]  # documented names

from imgdiffd import durable
from imgdiffd.bundles.bundle import Bundle, Model, SdxlSpec, SegmenterSpec, is_address
from imgdiffd.errors import BundleError
from imgdiffd.hub import direct
from imgdiffd.hub.damage import components, damage, has_weights
from imgdiffd.hub.files import checkpoint_files, component_files, model_files, pipeline_files
from imgdiffd.hub.refusals import ArrivedDamagedError, explained

_ANSWER_S = 30.0

Say = Callable[[str], None]
Pick = Callable[["_Repository"], list[str]]


@dataclass(frozen=True, slots=True)
class _File:
    """One file: `name` in its repository, size, `blob`: git's hash, or the SHA-256 of a large file (`is_large`)."""

    name: str
    size: int
    blob: str
    is_large: bool


@dataclass(frozen=True, slots=True)
class _Repository:
    """A hub id at one commit. `wanted` are the names of what the bundle's roles read of it: each role adds its own."""

    source: str
    revision: str | None
    commit: str
    files: dict[str, _File]
    wanted: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """Its folder in the cache (blobs, snapshots and refs, as huggingface_hub documents them)."""
        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.source, repo_type="model")

    def pointer(self, file: _File) -> Path:
        """Where the snapshot has `file`."""
        return self.folder / "snapshots" / self.commit / file.name

    def blob(self, file: _File) -> Path:
        """Where its bytes are."""
        return self.folder / "blobs" / file.blob

    def partial(self, file: _File) -> Path:
        """Where they gather until all are there."""
        return self.folder / "blobs" / f"{file.blob}.incomplete"


def pull(bundle: Bundle, say: Say) -> None:
    """Fetch all that `bundle` names by hub id or address, but what is there and whole; `say` gets a line a file.

    Interrupted at any moment, the next call goes on with the bytes that are there; a version that is whole is not
    replaced before the new one is. Raises BundleError naming role and source where a repository, revision or file
    cannot be had, the network fails or the disk has too little room, which is known before anything large is fetched.
    """
    repositories = _repositories(bundle)
    lacking = [(each, file) for each in repositories for file in _lacking(each)]
    downloads = _downloads(bundle)
    _make_sure_of_room(bundle, lacking, downloads)
    count = len(lacking) + len(downloads)
    for number, download in enumerate(downloads, 1):
        say(f"{number}/{count} {download.url}, {_size(download.size)}")
        with explained(bundle, "", download.url, None):
            direct.fetch(download)
    for number, (each, file) in enumerate(lacking, len(downloads) + 1):
        say(f"{number}/{count} {each.source}: {file.name}, {_size(file.size)}")
        with explained(bundle, "", each.source, each.revision):
            _fetch(each, file)
    for each in repositories:
        _name_commit(each)


def _repositories(bundle: Bundle) -> list[_Repository]:
    """Every hub id of `bundle` once, with all that its roles read of it."""
    found: dict[tuple[str, str | None], _Repository] = {}
    for role in bundle.roles:
        model = bundle.model(role)
        for source, revision, pick in _sources(model):
            if bundle.folder(source) is not None or is_address(source):
                continue
            with explained(bundle, f"{role}: ", source, revision):
                if (source, revision) not in found:
                    found[source, revision] = _listed(source, revision)
                each = found[source, revision]
                each.wanted.update(pick(each))
    return list(found.values())


def _downloads(bundle: Bundle) -> list[direct.Download]:
    """What is behind the web addresses of `bundle` and not here yet."""
    found = []
    for role in bundle.roles:
        source = bundle.model(role).source
        if is_address(source):
            with explained(bundle, f"{role}: ", source, None):
                found += [download] if (download := direct.asked(source)) else []
    return found


def _sources(model: Model) -> Iterator[tuple[str, str | None, Pick]]:
    """Source, revision and picker of each part of `model`."""
    if isinstance(model, SegmenterSpec):
        file = model.file
        yield model.source, model.revision, lambda each: checkpoint_files(each.files, file)
    elif isinstance(model, SdxlSpec):
        variant = model.variant
        yield model.source, model.revision, lambda each: _pick_pipeline(each, variant)
        if model.vae is not None:
            yield model.vae, None, lambda each: component_files(each.files)
    else:
        options: dict[str, Any] = {"variant": model.variant, "allow_pickle": model.allow_pickle}
        yield model.source, model.revision, lambda each: model_files(each.files, **options)


def _pick_pipeline(repository: _Repository, variant: str | None) -> list[str]:
    if "model_index.json" not in repository.files:
        raise ValueError("it has no model_index.json: no pipeline in the diffusers format")
    index = hf_hub_download(repository.source, "model_index.json", revision=repository.commit)
    parts = components(json.loads(Path(index).read_text("utf-8")))
    return pipeline_files(repository.files, {name: has_weights(kind) for name, kind in parts.items()}, variant)


def _listed(source: str, revision: str | None) -> _Repository:
    """What the hub has of `source` at `revision`; raises the hub's own errors."""
    api = HfApi()
    info = api.model_info(source, revision=revision, files_metadata=True, timeout=_ANSWER_S)
    if info.gated:
        api.auth_check(source)  # the list of a gated repository is open, its files are not
    files = {}
    for each in info.siblings or ():
        blob = each.lfs.sha256 if each.lfs else each.blob_id
        if blob is not None:
            files[each.rfilename] = _File(each.rfilename, each.size or 0, blob, each.lfs is not None)
    if info.sha is None:
        raise ValueError("the hub names no commit of it")
    return _Repository(source, revision, info.sha, files)


def _lacking(repository: _Repository) -> list[_File]:
    """What is not there whole, small files first: where all weights are, everything is."""
    wanted = [repository.files[name] for name in repository.wanted]
    lacking = [file for file in wanted if not _is_whole(repository.pointer(file), file)]
    return sorted(lacking, key=lambda file: (file.is_large, file.name))


def _is_whole(path: Path, file: _File) -> bool:
    """Whether `path`, in a snapshot or among the blobs, can be all of `file`."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return not file.name.endswith(".safetensors") or damage(path) is None


def _make_sure_of_room(
    bundle: Bundle, lacking: Sequence[tuple[_Repository, _File]], downloads: Sequence[direct.Download]
) -> None:
    missing = {each.blob(file): file.size - _bytes_there(each, file) for each, file in lacking}
    missing |= {each.path: each.size - each.bytes_there for each in downloads}
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    needed, free = sum(missing.values()), shutil.disk_usage(there).free
    if needed > free:
        raise BundleError(
            f"bundle {bundle.name}: {_size(needed)} are to be fetched, {_size(free)} are free in {cache}",
            hint=f"make room for {_size(needed - free)}, or set HF_HOME to a folder on a larger disk",
        )


def _bytes_there(repository: _Repository, file: _File) -> int:
    """Bytes of a lacking file that need not be fetched again."""
    if _is_whole(repository.blob(file), file):
        return file.size
    partial = repository.partial(file)
    size = partial.stat().st_size if file.is_large and partial.is_file() else 0
    return size if size <= file.size else 0


def _fetch(repository: _Repository, file: _File) -> None:
    """Put `file` into the snapshot."""
    pointer, blob = repository.pointer(file), repository.blob(file)
    for path in (pointer, blob):
        if not _is_whole(path, file):
            path.resolve().unlink(missing_ok=True)  # a snapshot's file is a link to a blob
            path.unlink(missing_ok=True)
    if file.is_large:
        lock = Path(constants.HF_HUB_CACHE) / ".locks" / repository.folder.name / f"{file.blob}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not blob.exists():
                _transfer(repository, file)
    hf_hub_download(repository.source, file.name, revision=repository.commit)  # a blob that is there is only linked


def _transfer(repository: _Repository, file: _File) -> None:
    """The bytes of a large file, after those that an earlier call left.

    huggingface_hub itself begins every file anew: it throws away what it has of one when it is interrupted.
    """
    partial = repository.partial(file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as out:
        if out.tell() > file.size:
            out.truncate(0)
        http_get(
            hf_hub_url(repository.source, file.name, revision=repository.commit),
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
    durable.move(partial, repository.blob(file))


def _name_commit(repository: _Repository) -> None:
    """Only now does the revision's name lead to this snapshot."""
    revision = repository.revision or constants.DEFAULT_REVISION
    if revision == repository.commit:
        return
    ref = repository.folder / "refs" / revision
    durable.make_folder(ref.parent)
    durable.write({ref: repository.commit})


def _size(count_bytes: int) -> str:
    """In GB of 10⁹ bytes, small ones in MB."""
    return f"{count_bytes / 1e9:.2f} GB" if count_bytes >= 1e9 else f"{count_bytes / 1e6:.2f} MB"
