"""Fetches what the loaders read of the models that a bundle names by hub id or web address."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download

from imgdiffd.bundles.bundle import Bundle, Model, SdxlSpec, SegmenterSpec, is_address
from imgdiffd.errors import BundleError
from imgdiffd.hub import direct
from imgdiffd.hub.damage import components, has_weights
from imgdiffd.hub.files import checkpoint_files, component_files, model_files, pipeline_files
from imgdiffd.hub.refusals import explained
from imgdiffd.hub.repository import Repository, RepositoryFile, list_repository

Say = Callable[[str], None]
Pick = Callable[[Repository], list[str]]


def pull(bundle: Bundle, say: Say) -> None:
    """Fetch everything that `bundle` names by hub id or address and that is not here whole; `say` gets a line a file.

    Interrupted at any moment, the next call resumes with the bytes that are here; a version that is whole is replaced
    only once the new one is whole. Raises BundleError naming role and source where a repository, revision or file
    is not available, the network fails or the disk has too little room, which is checked before anything large is
    fetched.
    """
    repositories = _repositories(bundle)
    lacking = [(repository, file) for repository in repositories for file in repository.lacking()]
    downloads = _downloads(bundle)
    _check_room(bundle, lacking, downloads)
    count = len(lacking) + len(downloads)
    for number, download in enumerate(downloads, 1):
        say(f"{number}/{count} {download.url}, {_size(download.size)}")
        with explained(bundle, "", download.url, None):
            direct.fetch(download)
    for number, (repository, file) in enumerate(lacking, len(downloads) + 1):
        say(f"{number}/{count} {repository.source}: {file.name}, {_size(file.size)}")
        with explained(bundle, "", repository.source, repository.revision):
            repository.fetch(file)
    for repository in repositories:
        repository.name_commit()


def _repositories(bundle: Bundle) -> list[Repository]:
    """Every hub id of `bundle` once, with all the files that its roles read."""
    found: dict[tuple[str, str | None], Repository] = {}
    for role in bundle.roles:
        model = bundle.model(role)
        for source, revision, pick in _sources(model):
            if bundle.folder(source) is not None or is_address(source):
                continue
            with explained(bundle, f"{role}: ", source, revision):
                if (source, revision) not in found:
                    found[source, revision] = list_repository(source, revision)
                repository = found[source, revision]
                repository.wanted.update(pick(repository))
    return list(found.values())


def _downloads(bundle: Bundle) -> list[direct.Download]:
    """What is behind the web addresses of `bundle` and not here yet."""
    found = []
    for role in bundle.roles:
        source = bundle.model(role).source
        if is_address(source):
            with explained(bundle, f"{role}: ", source, None):
                found += [download] if (download := direct.plan_download(source)) else []
    return found


def _sources(model: Model) -> Iterator[tuple[str, str | None, Pick]]:
    """Source, revision and picker of files for each part of `model`."""
    if isinstance(model, SegmenterSpec):
        file = model.file
        yield model.source, model.revision, lambda each: checkpoint_files(each.files, file)
    elif isinstance(model, SdxlSpec):
        yield model.source, model.revision, lambda each: _pick_pipeline(each, model.variant)
        for addition in model.additions:
            yield addition, None, lambda each: component_files(each.files)
    else:
        options: dict[str, Any] = {"variant": model.variant, "allow_pickle": model.allow_pickle}
        yield model.source, model.revision, lambda each: model_files(each.files, **options)


def _pick_pipeline(repository: Repository, variant: str | None) -> list[str]:
    if "model_index.json" not in repository.files:
        raise ValueError("it has no model_index.json, so it is not a pipeline in the diffusers format")
    index = hf_hub_download(repository.source, "model_index.json", revision=repository.commit)
    parts = components(json.loads(Path(index).read_text("utf-8")))
    return pipeline_files(repository.files, {name: has_weights(kind) for name, kind in parts.items()}, variant)


def _check_room(
    bundle: Bundle, lacking: Sequence[tuple[Repository, RepositoryFile]], downloads: Sequence[direct.Download]
) -> None:
    missing = {repository.blob_path(file): repository.bytes_to_fetch(file) for repository, file in lacking}
    missing |= {download.path: download.size - download.bytes_there for download in downloads}
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    needed, free = sum(missing.values()), shutil.disk_usage(existing).free
    if needed > free:
        raise BundleError(
            f"bundle {bundle.name}: {_size(needed)} are to be fetched, {_size(free)} are free in {cache}",
            hint=f"make room for {_size(needed - free)}, or set HF_HOME to a folder on a larger disk",
        )


def _size(count_bytes: int) -> str:
    """In GB of 10⁹ bytes, small ones in MB."""
    return f"{count_bytes / 1e9:.2f} GB" if count_bytes >= 1e9 else f"{count_bytes / 1e6:.2f} MB"
