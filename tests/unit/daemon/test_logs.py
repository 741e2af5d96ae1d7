"""The log as JSON: an object a line whatever is in it, with the journal's priority where the journal reads it."""

import json
import logging
import sys

from imgdiffd.daemon.logs import JsonFormatter


def record(message: str, *values: object, level: int = logging.INFO) -> logging.LogRecord:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        failed = sys.exc_info() if level >= logging.ERROR else None
        return logging.LogRecord("imgdiffd.x", level, "", 0, message, values, failed)


def test_a_record_is_one_line_of_json_whatever_it_says() -> None:
    line = JsonFormatter().format(record("job %r:\n\x1b[31m\u2028\udcff", "a\nb"))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    entry = json.loads(line)
    assert entry["message"] == "job 'a\\nb':\n\x1b[31m\u2028\udcff"
    assert (entry["level"], entry["logger"]) == ("info", "imgdiffd.x")
    assert entry["time"].endswith("+00:00")
    assert "exception" not in entry


def test_a_traceback_is_part_of_the_object() -> None:
    entry = json.loads(JsonFormatter().format(record("it failed", level=logging.ERROR)))
    assert "Traceback" in entry["exception"]
    assert "ValueError: two\nlines" in entry["exception"]


def test_the_journal_still_gets_its_priority() -> None:
    line = JsonFormatter(journal=True).format(record("it failed", level=logging.WARNING))
    assert line.startswith("<4>{")
    assert json.loads(line.removeprefix("<4>"))["level"] == "warning"


def test_what_a_job_brought_is_a_field_of_its_own() -> None:
    made = record("job 1 is done")
    made.job, made.funnel = 1, {"captions": 3}
    entry = json.loads(JsonFormatter().format(made))
    assert (entry["job"], entry["funnel"]) == (1, {"captions": 3})
