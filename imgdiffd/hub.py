"""What the hub's local cache holds of a bundle: looked at, never fetched.

It owns the way from a hub id to its folder on this machine; it does not know the network or what is in a model.
"""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from imgdiffd.bundle import Bundle, Model, Sdxl, problems
from imgdiffd.pipeline import Role


@dataclass(frozen=True, slots=True)
class Presence:
    """One role's model: `problems` is empty where it is whole and here; each entry is a line that names a file."""

    role: Role
    model: Model
    problems: tuple[str, ...]


def cached(source: str, revision: str | None) -> Path | None:
    """The folder of a hub id's snapshot in the local cache; None where there is none."""
    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def presences(bundle: Bundle) -> list[Presence]:
    """Every role of `bundle`, in order: local folders as `bundle.problems` sees them, hub ids as the cache has them."""
    found = []
    for role in bundle.roles:
        model = bundle.model(role)
        lacking = [text.removeprefix(f"{role}: ") for text in problems(bundle, [role])]
        sources = [(model.source, model.revision)]
        if isinstance(model, Sdxl) and model.vae:
            sources.append((model.vae, None))
        for source, revision in sources:
            if bundle.folder(source) is None and cached(source, revision) is None:
                at = f" --revision {revision}" if revision else ""
                lacking.append(f"{source}: not in the local cache; `hf download {source}{at}` fetches it")
        found.append(Presence(role, model, tuple(lacking)))
    return found
