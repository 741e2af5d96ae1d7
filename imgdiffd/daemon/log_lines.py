"""Log lines of which nothing that comes from a client, a file or a worker can forge another or command a terminal."""

import logging
from types import TracebackType

from imgdiffd.errors import visible

_ErrorInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]  # of sys.exc_info()
)
PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LineFormatter(logging.Formatter):
    """One line a record, with control characters written out; a traceback follows it on indented lines."""

    def __init__(self, form: str = PLAIN) -> None:
        super().__init__(form)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's own line."""
        return visible(super().formatMessage(record).rstrip("\n"))

    def formatException(self, ei: _ErrorInfo) -> str:
        """The traceback, whose messages may say anything."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        """The stack, where a record has one."""
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"  {visible(line)}" for line in text.split("\n"))
