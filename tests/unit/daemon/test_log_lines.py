"""Log lines that hostile names, messages and tracebacks cannot forge."""

import logging
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.daemon.log_lines import LineFormatter
from imgdiffd.daemon.notify import JournalFormatter
from imgdiffd.errors import InputError

FORGED = "a.txt\n2026-01-01 00:00:00,000 CRITICAL imgdiffd: all is lost\x1b[31m\x1b]0;title\x07\r\x85\u2028<2>root"


def record(text: str, error: Exception | None = None) -> logging.LogRecord:
    try:
        if error is not None:
            raise error
    except InputError:
        return logging.LogRecord("imgdiffd.inbox", logging.WARNING, "", 0, "inbox: %s refused", (text,), sys.exc_info())
    return logging.LogRecord("imgdiffd.inbox", logging.WARNING, "", 0, "inbox: %s refused", (text,), None)


@pytest.mark.parametrize("formatter", [LineFormatter, JournalFormatter])
@given(text=st.text() | st.just(FORGED))
def test_a_record_is_one_printable_line_whatever_it_says(formatter: Callable[[], logging.Formatter], text: str) -> None:
    line = formatter().format(record(text))
    assert line.isprintable()
    assert line.endswith(" refused")


def test_a_traceback_cannot_pass_for_records() -> None:
    first, *rest = LineFormatter().format(record("a.txt", InputError(FORGED, code="x"))).split("\n")
    assert first.endswith("WARNING imgdiffd.inbox: inbox: a.txt refused")
    assert len(rest) > 3
    assert all(line.startswith("  ") and line.isprintable() for line in rest)


def test_every_line_of_a_traceback_has_its_own_priority() -> None:
    lines = JournalFormatter().format(record("a.txt", InputError(FORGED, code="x"))).split("\n")
    assert all(line.startswith("<4>  ") and line.isprintable() for line in lines[1:])
