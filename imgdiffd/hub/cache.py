"""What is on this machine of a bundle: folders as they are, what is fetched as the local cache has it.

It owns the names of what is missing and of the command that repairs it; it never asks the network.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgdiffd.bundles.bundle import BUILT_IN, MINI, Bundle, Model, SdxlSpec, is_address, load_bundle
from imgdiffd.hub.damage import damages
from imgdiffd.hub.direct import folder_behind
from imgdiffd.pipeline import Role


@dataclass(frozen=True, slots=True)
class Presence:
    """One role's model: `problems` is empty where it is whole and here; each entry is a line that names a file."""

    role: Role
    model: Model
    problems: tuple[str, ...]


def cached(source: str, revision: str | None) -> Path | None:
    """The folder of a hub id's snapshot in the local cache, whole or not, or of a web address's file; None if none."""
    if is_address(source):
        return folder_behind(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        partial = getattr(error, "snapshot_path", None)  # it counts files, the ones that are never read included
        return None if partial is None else Path(partial)
    except HFValidationError:
        return None


def folder_of(bundle: Bundle, model: Model) -> Path | None:
    """The folder that `model` is read from; None for a hub id that is not in the local cache."""
    return bundle.folder(model.source) or cached(model.source, model.revision)


def vae_folder_of(bundle: Bundle, model: SdxlSpec) -> Path | None:
    """The folder of the autoencoder that replaces the checkpoint's own; None where there is none, or none here."""
    return None if model.vae is None else bundle.folder(model.vae) or cached(model.vae, None)


def from_hub(bundle: Bundle, model: Model) -> bool:
    """Whether any part of `model` is named by a hub id or a web address, which `pull` fetches."""
    sources = [model.source, model.vae] if isinstance(model, SdxlSpec) else [model.source]
    return any(source is not None and bundle.folder(source) is None for source in sources)


def remedy(bundle: Bundle, role: Role) -> str:
    """What to do about a missing or damaged file of `role`: the command that brings it back."""
    known = next((name for name in BUILT_IN if load_bundle(name).path == bundle.path), None)
    if from_hub(bundle, bundle.model(role)):
        return f"`imgdiffd models pull {known or shlex.quote(str(bundle.path))}` fetches what is lacking"
    if known == MINI:
        return "`make mini` rebuilds the miniature bundle"
    return f"put it there, or change the source in {'a copy of ' if known else ''}{bundle.path}"


def presences(bundle: Bundle, roles: Sequence[Role] | None = None) -> list[Presence]:
    """Each of `roles`, or of all that `bundle` has, in order. Reads configurations and headers, never weights."""
    wanted = bundle.roles if roles is None else roles
    return [Presence(role, bundle.model(role), _problems(bundle, bundle.model(role))) for role in wanted]


def problems(bundle: Bundle, roles: Sequence[Role] | None = None) -> list[str]:
    """What is missing or damaged of `roles`, or of all roles: a line each with role, file and remedy; [] if nothing."""
    found = presences(bundle, roles)
    return [f"{each.role}: {text}; {remedy(bundle, each.role)}" for each in found for text in each.problems]


def _problems(bundle: Bundle, model: Model) -> tuple[str, ...]:
    folder, vae = folder_of(bundle, model), None
    found = [] if folder else [f"{model.label}: not in the local cache"]
    if isinstance(model, SdxlSpec) and model.vae is not None:
        vae = vae_folder_of(bundle, model)
        found += [] if vae else [f"{model.vae}: not in the local cache"]
    return (*found, *damages(model, folder, vae))
