"""Caption files for a daemon that is always to have work: new captions, copies and files that cannot be read."""

from pathlib import Path

import numpy as np

from imgdiffd.mini.world import PLACES, caption_of, draw_names

CAPTIONS = (1, 8)  # of a file
COPY_EACH, BAD_EACH = 10, 15  # files


class Mill:
    """Drops file after file into `inbox`."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._random = np.random.default_rng(1)
        self.dropped = 0

    def drop(self) -> None:
        """Drop the next file, whole and at once; every so often a copy follows it, or one that is refused."""
        self.dropped += 1
        text = "".join(f"{self._caption()}\n" for _ in range(self._random.integers(*CAPTIONS, endpoint=True)))
        self._put(f"{self.dropped}.txt", text)
        if self.dropped % COPY_EACH == 0:
            self._put(f"{self.dropped}-copy.txt", text)
        if self.dropped % BAD_EACH == 0:
            self._put(f"{self.dropped}-bad.json", "{")

    @property
    def taken(self) -> bool:
        """Whether the daemon has taken every file."""
        return not any(path.is_file() for path in self._inbox.iterdir())

    def _caption(self) -> str:
        names = draw_names(self._random, int(self._random.integers(1, 4)))
        return caption_of(names, PLACES[self._random.integers(len(PLACES))])

    def _put(self, name: str, text: str) -> None:
        partial = self._inbox / f".{name}.part"
        partial.write_text(text)
        partial.rename(self._inbox / name)
