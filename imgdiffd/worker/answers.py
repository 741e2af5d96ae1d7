"""Answers to batches, each sent once its images are durable, while the next batch is computed."""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

from imgdiffd.errors import first_line
from imgdiffd.fleet.wire import EXIT_POISONED, Done, Failed
from imgdiffd.worker.faults import Fault, sort_of_fault

Finish = Callable[[], None]
Send = Callable[[Done | Failed], None]


class Answers:
    """A thread that finishes batches in their order: it makes their images durable, then sends their answers.

    One batch may wait behind the one that it is at, so that the images of few batches are in memory.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: queue.Queue[tuple[Done | Failed, Finish | None] | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def put(self, answer: Done | Failed, finish: Finish | None = None) -> None:
        """Send `answer` after those before it, once `finish` has made its images durable; waits while one is waiting.

        Where `finish` raises, the batch has failed.
        """
        self._waiting.put((answer, finish))

    def close(self) -> None:
        """Return once every answer was sent."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while (each := self._waiting.get()) is not None:
                self._send(_finished(*each))
                del each
        except BaseException:  # without this thread the daemon would wait for its answers for good
            end(1, traceback.format_exc())


def _finished(answer: Done | Failed, finish: Finish | None) -> Done | Failed:
    try:
        if finish is not None:
            finish()
    except Exception as error:
        return failed(answer.batch, error)
    return answer


def failed(batch: int, error: Exception) -> Failed:
    """The answer to a batch that failed with `error`.

    A poisoned device ends the process instead, since every later batch would fail because of this one.
    """
    detail = "".join(traceback.format_exception(error))
    fault = sort_of_fault(error)
    if fault is Fault.POISONED:
        end(EXIT_POISONED, detail)
    return Failed(batch, fault is Fault.MEMORY, first_line(error), detail, fault is Fault.DISK)


def end(status: int, why: str) -> NoReturn:
    """End the process now, with its reason on stderr."""
    print(why, file=sys.stderr, flush=True)
    os._exit(status)
