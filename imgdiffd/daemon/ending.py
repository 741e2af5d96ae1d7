"""Why the daemon ends although nobody asked it to."""

import logging

import anyio

from imgdiffd.errors import ImgdiffdError

_log = logging.getLogger(__name__)


class Ending:
    """`error` is the first reason, None while there is none; `begun` is set with it."""

    def __init__(self) -> None:
        self.error: ImgdiffdError | None = None
        self.begun = anyio.Event()

    def because(self, error: ImgdiffdError) -> None:
        """Have the daemon stop in order and report this error; later ones are its consequences and only logged."""
        if self.error is not None:
            _log.debug("while ending: %s", error)
            return
        self.error = error
        _log.critical("%s", error)
        self.begun.set()

    def because_of(self, group: BaseExceptionGroup[ImgdiffdError]) -> None:
        """As `because`, with the first error in a group."""
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        assert isinstance(error, ImgdiffdError)
        self.because(error)
