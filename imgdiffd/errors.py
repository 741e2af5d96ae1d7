"""Everything imgdiffd raises on purpose, in one small tree.

It owns the names and the wording rules; it knows nothing of where the errors are shown.

    ImgdiffdError                 what went wrong, why, and what to do next
    ├── ConfigurationError        exit status 78: starting again will not help
    │   ├── SettingsError         a key or value in the settings, with file and line where known
    │   ├── ProfileError          an unknown profile or a wrong threshold
    │   └── BundleError           a model is missing, damaged or in a format that is not allowed
    ├── InputError                a caption file or record that cannot be used
    ├── StoreError                the database: wrong version, in use by another daemon, damaged
    │   └── StoreFullError        the disk has no room for a change, which may succeed later
    ├── DaemonError               the client's side: no daemon, a refused request
    └── WorkError                 carries device, stage and items
        ├── OutOfMemoryError      the batch did not fit; a smaller one may
        ├── StageError            the stage raised on this batch
        │   └── NoRoomError       it could not write its images: the disk is full
        ├── WorkerDiedError       the process ended, hung or broke the protocol
        └── DeviceStartError      the process never became ready
"""

from collections.abc import Sequence

EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h; the unit file tells systemd not to restart on it


class ImgdiffdError(Exception):
    """Base of the tree. `str()` is one line for people: the object, the reason, and `hint`, what to do next."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigurationError(ImgdiffdError):
    """What was configured cannot work, now or after a restart."""

    exit_status = EXIT_CONFIGURATION


class SettingsError(ConfigurationError):
    """A settings key or value is wrong."""


class ProfileError(ConfigurationError):
    """A profile is unknown or holds a wrong value."""


class BundleError(ConfigurationError):
    """A model of the bundle is missing, damaged or in a refused format."""


class InputError(ImgdiffdError):
    """A caption file, or one record of it, cannot be used. `code` is the short reason kept in the database."""

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class StoreError(ImgdiffdError):
    """The database cannot be opened or written."""


class StoreFullError(StoreError):
    """The disk was full: nothing was changed, and trying again once there is room will help."""


class DaemonError(ImgdiffdError):
    """The daemon does not answer, or refuses a request."""


class WorkError(ImgdiffdError):
    """A batch failed. `device`, `stage` and `items` say where; the cause is chained."""

    def __init__(
        self,
        message: str,
        *,
        device: str = "",
        stage: str = "",
        items: Sequence[int] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.device = device
        self.stage = stage
        self.items = tuple(items)


class OutOfMemoryError(WorkError):
    """The device had no memory for this batch; the worker lives on."""


class StageError(WorkError):
    """The stage raised on this batch; the worker lives on."""


class NoRoomError(StageError):
    """There was no room on the disk for what the stage made. Nothing is held against its items."""


class WorkerDiedError(WorkError):
    """The worker process ended, stopped answering or broke the protocol while it held this batch.

    `begun` is False where the batch cannot be the cause: it was still queued behind another, the worker was told to
    stop, or none was running. Then nothing is held against its items.
    """

    begun = True


class DeviceStartError(WorkError):
    """The worker process did not become ready: models not loaded, device not found."""
