"""Reloads settings: on SIGHUP it reads all and, if they are valid, applies those that may change while running."""

import logging
import signal
from collections.abc import Callable, Sequence

import anyio

from imgdiffd.errors import SettingsError
from imgdiffd.settings import Settings

_log = logging.getLogger(__name__)

# All others need a restart.
RELOADABLE = (
    "poll_s",
    "settle_s",
    "drain_s",
    "min_free_gb",
    "keep_pictures",
    "keep_jobs_days",
    "keep_done_gb",
    "log_level",
)


class LiveSettings:
    """`settings` are in force; each of `users` is called with the new ones when they change."""

    def __init__(self, settings: Settings, users: Sequence[Callable[[Settings], None]]) -> None:
        self.settings = settings
        self.problems: tuple[str, ...] = ()  # shown to people; work continues with the settings in force
        self._users = users

    async def run(self, read: Callable[[], Settings]) -> None:
        """Read and apply the settings at every SIGHUP until cancelled."""
        with anyio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                self.apply(read)

    def apply(self, read: Callable[[], Settings]) -> None:
        """Apply the settings that `read` returns; if it raises SettingsError, only `problems` changes and says why."""
        try:
            wanted = read()
        except SettingsError as error:
            self.problems = (f"settings: the old ones stay in force: {error}",)
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
        self.problems = (f"settings: restart to apply {', '.join(waiting)}",) if waiting else ()
        told = ", ".join(f"{key} = {value}" for key, value in applied.items())
        _log.info("settings: reloaded; %s", f"now in force: {told}" if told else "nothing changed")
        for problem in self.problems:
            _log.warning("%s", problem)
