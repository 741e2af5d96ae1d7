"""What the hub, the network and the disk refuse, as one error that names the object and says what to do.

It owns the wording; it does not know what was being done.
"""

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
    """Inside, what the hub or the disk refuses becomes one BundleError that says what to do."""
    try:
        yield
    except ImgdiffdError:
        raise
    except Exception as error:  # the transport's own errors have other names in each release of huggingface_hub
        reason, hint = _reason(bundle, error, source, revision)
        raise BundleError(f"bundle {bundle.name}: {whose}{source}: {reason}", hint=hint) from error


def _reason(bundle: Bundle, error: Exception, source: str, revision: str | None) -> tuple[str, str]:
    again = "what is there is kept: the same command goes on from here"
    match error:
        case GatedRepoError():
            page = f"{constants.ENDPOINT}/{source}"
            return "gated", f"accept its terms on {page}, then `hf auth login` and pull again"
        case RepositoryNotFoundError():
            return "no such repository, or a private one", f"correct it in {bundle.path}, or `hf auth login`"
        case RevisionNotFoundError():
            return f"no revision {revision or constants.DEFAULT_REVISION}", f"correct revision in {bundle.path}"
        case OfflineModeIsEnabled():
            return "the hub is not asked in offline mode", "unset HF_HUB_OFFLINE to fetch it"
        case EntryNotFoundError() | ArrivedDamagedError():
            return _line(error), again
        case HfHubHTTPError() if error.response.status_code in {401, 403}:
            return f"the hub refuses it: {_line(error)}", "`hf auth login`, then pull again"
        case HfHubHTTPError():
            return f"the hub answers {error.response.status_code}", f"try again later; {again}"
        case ValueError():
            return _line(error), f"correct it in {bundle.path}"
        case OSError() if error.errno is not None:
            return _line(error), again
    return f"the hub cannot be reached: {_line(error)}", f"check network, proxy and HF_ENDPOINT; {again}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
