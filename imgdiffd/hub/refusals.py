"""Turns what the hub, the network or the disk refuses into one error that names the source and says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from imgdiffd.bundles.bundle import Bundle
from imgdiffd.errors import BundleError, ImgdiffdError


class ArrivedDamagedError(Exception):
    """The bytes are not the ones that were announced."""


@contextmanager
def explained(bundle: Bundle, whose: str, source: str, revision: str | None) -> Iterator[None]:
    """Inside, every error of the hub, the network or the disk becomes a BundleError that says what to do."""
    try:
        yield
    except ImgdiffdError:
        raise
    except Exception as error:  # the transport's own errors have other names in each release of huggingface_hub
        reason, hint = _reason(bundle, error, source, revision)
        raise BundleError(f"bundle {bundle.name}: {whose}{source}: {reason}", hint=hint) from error


def _reason(bundle: Bundle, error: Exception, source: str, revision: str | None) -> tuple[str, str]:
    """The reason and what to do next."""
    again = "what is here is kept: the same command resumes from it"
    match error:
        case GatedRepoError():
            page = f"{constants.ENDPOINT}/{source}"
            found = "gated", f"accept its terms on {page}, then `hf auth login` and pull again"
        case RepositoryNotFoundError():
            found = "no such repository, or a private one", f"correct it in {bundle.path}, or `hf auth login`"
        case RevisionNotFoundError():
            found = f"no revision {revision or constants.DEFAULT_REVISION}", f"correct revision in {bundle.path}"
        case OfflineModeIsEnabled():
            found = "the hub is not asked in offline mode", "unset HF_HUB_OFFLINE to fetch it"
        case EntryNotFoundError() | ArrivedDamagedError():
            found = _line(error), again
        case HfHubHTTPError():
            found = _answered(error, again)
        case ValueError():
            found = _line(error), f"correct it in {bundle.path}"
        case OSError() if error.errno is not None:
            found = _line(error), again
        case _:
            found = f"the hub cannot be reached: {_line(error)}", f"check network, proxy and HF_ENDPOINT; {again}"
    return found


def _answered(error: HfHubHTTPError, again: str) -> tuple[str, str]:
    if error.response.status_code in {401, 403}:
        return f"the hub refuses it: {_line(error)}", "`hf auth login`, then pull again"
    return f"the hub answers {error.response.status_code}", f"try again later; {again}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
