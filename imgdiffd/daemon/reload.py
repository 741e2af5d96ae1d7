"""The settings of a running daemon: SIGHUP reads them again and applies those that may change, if all are right."""

import logging
import signal
from collections.abc import Callable, Sequence

import anyio

from imgdiffd.errors import SettingsError
from imgdiffd.settings import Settings

_log = logging.getLogger(__name__)

# All others are for a start.
RELOADABLE = ("poll_s", "settle_s", "drain_s", "min_free_gb", "keep_pictures", "log_level")


class LiveSettings:
    """`settings` are those in force; each of `users` is given the new ones when they change."""

    def __init__(self, settings: Settings, users: Sequence[Callable[[Settings], None]]) -> None:
        self.settings = settings
        self.problems: tuple[str, ...] = ()  # sentences for people; work goes on with what is in force
        self._users = users

    async def run(self, read: Callable[[], Settings]) -> None:
        """Read and apply at every SIGHUP until cancelled."""
        with anyio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                self.apply(read)

    def apply(self, read: Callable[[], Settings]) -> None:
        """Put in force what `read` gives; where it raises SettingsError, all stays as it was and `problems` says so."""
        try:
            wanted = read()
        except SettingsError as error:
            self.problems = (f"settings: those before stay in force: {error}",)
            _log.error("%s", self.problems[0])
            return
        changed = [key for key in Settings.model_fields if getattr(wanted, key) != getattr(self.settings, key)]
        applied = {key: getattr(wanted, key) for key in changed if key in RELOADABLE}
        waiting = [key for key in changed if key not in RELOADABLE]
        self.settings = self.settings.model_copy(update=applied)
        if "log_level" in applied:
            logging.getLogger().setLevel(self.settings.log_level.upper())
        for use in self._users:
            use(self.settings)
        self.problems = (f"settings: a restart puts {', '.join(waiting)} in force",) if waiting else ()
        told = ", ".join(f"{key} = {value}" for key, value in applied.items())
        _log.info("settings: read again; %s", f"in force: {told}" if told else "nothing changes now")
        for problem in self.problems:
            _log.warning("%s", problem)
