"""How the log is written: for people, for the journal, or as JSON for programs."""

import json
import logging
import sys
from datetime import UTC, datetime

from imgdiffd.daemon.log_lines import LineFormatter
from imgdiffd.daemon.notify import JournalFormatter, in_journal, syslog_priority
from imgdiffd.settings import Settings

_EXTRA = ("job", "funnel")  # what a record may carry besides its message


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of ASCII JSON, a traceback included; with `journal`, after its priority."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: getattr(record, key) for key in _EXTRA if hasattr(record, key)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        line = json.dumps(entry, default=str)
        return f"<{syslog_priority(record.levelno)}>{line}" if self._journal else line


def log_to_stderr(settings: Settings) -> None:
    """Send every logger of this process to stderr, as the settings and whoever reads it want it."""
    journal = in_journal(sys.stderr)
    formatter: logging.Formatter = LineFormatter()
    if settings.log_format == "json":
        formatter = JsonFormatter(journal=journal)
    elif journal:
        formatter = JournalFormatter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.captureWarnings(True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
