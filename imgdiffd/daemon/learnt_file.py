"""Keeps what the scheduler has learnt in a file, so that a restarted daemon begins with it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import anyio

from imgdiffd import durable
from imgdiffd.schedulers.scheduler import Scheduler

_log = logging.getLogger(__name__)

SAVE_EVERY_S = 60.0


class LearntFile:
    """`learnt.json` in `folder`, used only for the `bundle` it was learnt with: other models have other costs.

    It only saves a later daemon from learning again, so failures to read or write it are logged and ignored.
    """

    def __init__(self, folder: Path, bundle: str) -> None:
        self.path = folder / "learnt.json"
        self._bundle = bundle
        self._saved = ""

    def give(self, scheduler: Scheduler) -> None:
        """Let a new scheduler begin with what an earlier one learnt, if the file has it."""
        try:
            read = json.loads(self.path.read_text("utf-8"))
            if read["bundle"] == self._bundle:
                scheduler.take_over(read["learnt"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("%s: ignored, so costs and batch sizes are learnt again: %s", self.path, error)

    def save(self, learnt: str) -> None:
        """Write the file atomically if anything has changed."""
        if learnt == self._saved:
            return
        try:
            durable.write({self.path: json.dumps({"bundle": self._bundle, "learnt": learnt})})
            self._saved = learnt
        except OSError as error:
            _log.warning("%s: cannot be written: %s", self.path, error)

    async def keep(self, learnt: Callable[[], str]) -> None:
        """Save every SAVE_EVERY_S seconds until cancelled, and then once more."""
        try:
            while True:
                await anyio.sleep(SAVE_EVERY_S)
                await anyio.to_thread.run_sync(self.save, learnt())
        finally:
            self.save(learnt())
