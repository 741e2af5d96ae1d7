"""Which of a bundle's models are on this machine, and the command that repairs what is missing; asks no network."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgdiffd.bundles.bundle import BUILT_IN, MINI, Bundle, Model, is_address, load_bundle
from imgdiffd.hub.damage import damages
from imgdiffd.hub.direct import folder_behind
from imgdiffd.pipeline import Role


@dataclass(frozen=True, slots=True)
class Presence:
    """One role's model. `problems` has a line, naming the file, for all that is missing or damaged."""

    role: Role
    model: Model
    problems: tuple[str, ...]


def cached(source: str, revision: str | None) -> Path | None:
    """The cache's folder of a hub id's snapshot, whole or not, or of a web address's file; None if absent."""
    if is_address(source):
        return folder_behind(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        partial = getattr(error, "snapshot_path", None)  # raised also where only files are missing that are never read
        return None if partial is None else Path(partial)
    except HFValidationError:
        return None


def folder_of(bundle: Bundle, model: Model) -> Path | None:
    """The folder that `model` is read from; None for a hub id that is not in the local cache."""
    return bundle.folder(model.source) or cached(model.source, model.revision)


def addition_of(bundle: Bundle, source: str) -> Path | None:
    """The folder of a network that a model reads beside its own; None for a hub id that is not in the local cache."""
    return bundle.folder(source) or cached(source, None)


def _is_fetched(bundle: Bundle, model: Model) -> bool:
    """Whether any part of `model` is named by a hub id or a web address, so that `pull` fetches it."""
    sources = [model.source, *model.additions]
    return any(bundle.folder(source) is None for source in sources)


def remedy(bundle: Bundle, role: Role) -> str:
    """What to do about a missing or damaged file of `role`: the command that brings it back."""
    known = next((name for name in BUILT_IN if load_bundle(name).path == bundle.path), None)
    if _is_fetched(bundle, bundle.model(role)):
        return f"`imgdiffd models pull {known or shlex.quote(str(bundle.path))}` fetches what is missing"
    if known == MINI:
        return "`make mini` rebuilds the miniature bundle"
    return f"put the model there, or change its source in {'a copy of ' if known else ''}{bundle.path}"


def presences(bundle: Bundle, roles: Sequence[Role] | None = None) -> list[Presence]:
    """The model of each of `roles`, or of every role of `bundle`. Reads configurations and headers, never weights."""
    wanted = bundle.roles if roles is None else roles
    return [Presence(role, bundle.model(role), _problems(bundle, bundle.model(role))) for role in wanted]


def problems(bundle: Bundle) -> list[str]:
    """What is missing or damaged: a line each with role, file and remedy, the first role's where several share it."""
    found = presences(bundle, [role for role in bundle.roles if bundle.shared_with(role) is None])
    return [f"{each.role}: {text}; {remedy(bundle, each.role)}" for each in found for text in each.problems]


def _problems(bundle: Bundle, model: Model) -> tuple[str, ...]:
    folder, additions = folder_of(bundle, model), []
    found = [] if folder else [f"{model.label}: not in the local cache"]
    for source in model.additions:
        if (addition := addition_of(bundle, source)) is None:
            found.append(f"{source}: not in the local cache")
        else:
            additions.append(addition)
    return (*found, *damages(model, folder, additions))
