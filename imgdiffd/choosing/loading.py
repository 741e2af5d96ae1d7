"""Brings the columns up to date: what files hold of unchanged captions, and the rest from the database."""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from imgdiffd.choosing.cache import CAPTIONS, Cache
from imgdiffd.choosing.columns import Array, Columns, Table, join, length
from imgdiffd.choosing.gathering import gather, mark_columns
from imgdiffd.method.profile import Profile
from imgdiffd.store import ItemMark, Reader

FOLDER = "columns"


class Loader:
    """Loads the columns of one database. With `state` they are kept in the folder `columns` there, if that can be.

    Only the owner of the database keeps files there: those of another user would be in its way. `not_kept` says why
    nothing could be written. `read` counts the captions that were read from the database.
    """

    def __init__(self, reader: Reader, state: Path | None = None) -> None:
        self._reader = reader
        self._profiles: dict[int, Profile] = {}
        self._cache: Cache | None = None
        self._writes = state is not None and os.geteuid() == state.stat().st_uid
        self.not_kept = ""
        self.read = 0
        if state is not None and (instance := reader.instance()):
            self._cache = Cache(state / FOLDER, instance)

    def load(self, progress: Callable[[int], object] = lambda done: None) -> Columns:
        """All columns, up to date. `progress` is told how many captions are loaded so far."""
        span = self._reader.caption_span()
        numbers = range(span.start // CAPTIONS, (span.stop - 1) // CAPTIONS + 1) if span else range(0)
        parts = [gather((), (), {})]
        done = 0
        for number in numbers:
            parts.append(self._segment(number))
            done += len(parts[-1])
            progress(done)
        self._keep(lambda cache: cache.sweep(numbers))
        return join(parts)

    def profile(self, group: int) -> Profile:
        """The profile of these captions' group."""
        if group not in self._profiles:
            self._profiles[group] = self._reader.profile_of(str(group))
        return self._profiles[group]

    def _segment(self, number: int) -> Columns:
        kept = (self._cache.read(number) if self._cache else None) or gather((), (), {})
        known: Array = np.zeros(0, dtype=np.int64)

        def wanted(marks: Sequence[ItemMark]) -> Collection[int]:
            nonlocal known
            known = _unchanged(kept.items, mark_columns(marks))
            there = set(kept.items["item"][known].tolist())
            return [mark.item for mark in marks if mark.item not in there]

        marks, scored = self._reader.scored(range(number * CAPTIONS, (number + 1) * CAPTIONS), wanted)
        if not scored and len(known) == len(kept):
            return kept
        self.read += len(scored)
        fresh = {each.item for each in scored}
        changed = [mark for mark in marks if mark.item in fresh]
        profiles = {mark.group: self.profile(mark.group) for mark in changed}
        columns = join([kept.take(known), gather(changed, scored, profiles)])
        columns = columns.take(np.argsort(columns.items["item"]))
        self._keep(lambda cache: cache.write(number, columns))
        return columns

    def _keep(self, change: Callable[[Cache], object]) -> None:
        if self._cache is None or not self._writes or self.not_kept:
            return
        try:
            change(self._cache)
        except OSError as error:
            self.not_kept = f"{error.filename or FOLDER}: {error.strerror or error}"


def _unchanged(kept: Table, marks: Table) -> Array:
    """The rows of `kept` whose captions still have the same marks."""
    if not length(marks):
        return np.zeros(0, dtype=np.int64)
    there = np.minimum(np.searchsorted(marks["item"], kept["item"]), length(marks) - 1)
    same = [column[there] == kept[name] for name, column in marks.items()]
    return np.flatnonzero(np.logical_and.reduce(same))
