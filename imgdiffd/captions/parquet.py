"""Reads caption files in Parquet through a process of its own, which takes its memory with it when it ends."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import BinaryIO

from imgdiffd.captions.records import Entry
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem, CaptionRecord

_PROGRAM = (sys.executable, "-P", "-m", "imgdiffd.captions.parquet_process")


def read_parquet(file: BinaryIO, field: str) -> Iterator[Entry]:
    """The captions in the caption column of a file with a descriptor, rows numbered from 1.

    Raises InputError, and OSError where the process cannot be started or was killed.
    """
    with subprocess.Popen((*_PROGRAM, field), stdin=file, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                match json.loads(line):
                    case [number, text, source_id]:
                        yield CaptionRecord(text, source_id, number)
                    case [number, code, message, None]:
                        yield CaptionProblem(number, code, message)
                    case {"refused": [message, code, hint]}:
                        raise InputError(message, code=code, hint=hint)
                    case {"rows": _}:
                        return
            ended = -process.wait()  # without its last line
        finally:
            process.kill()
    if ended == signal.SIGKILL:
        raise OSError(errno.ENOMEM, "the process that read it was killed")
    how = f"was ended by {signal.Signals(ended).name}" if ended > 0 else f"ended with status {-ended}"
    raise InputError(
        f"cannot be read as Parquet: the process that read it {how}", code="bad_parquet", hint="write the file again"
    )
