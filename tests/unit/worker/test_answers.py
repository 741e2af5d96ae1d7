"""Answers leave in order, once their images are durable; few batches wait, and no answer is lost without a word."""

import errno
import threading
import time

import pytest

from imgdiffd.fleet.wire import Done, Failed
from imgdiffd.worker import answers as answers_module
from imgdiffd.worker.answers import Answers

LIMIT_S = 30.0


def done(batch: int) -> Done:
    return Done(batch, (), 0.1)


def test_an_answer_leaves_when_its_images_are_durable_and_in_order() -> None:
    happened: list[object] = []
    answers = Answers(lambda answer: happened.append(answer.batch))
    for batch in (3, 1, 2):
        answers.put(done(batch), lambda batch=batch: happened.append(f"durable {batch}"))  # type: ignore[misc]
    answers.put(done(9), lambda: time.sleep(0.2))  # `close` waits for it
    answers.close()
    assert happened == ["durable 3", 3, "durable 1", 1, "durable 2", 2, 9]


def test_one_batch_waits_behind_the_one_that_is_written() -> None:
    written, third_is_in = threading.Event(), threading.Event()
    answers = Answers(lambda answer: None)
    answers.put(done(1), lambda: None if written.wait(LIMIT_S) else pytest.fail("it was never let go"))
    answers.put(done(2))

    def put_third() -> None:
        answers.put(done(3))
        third_is_in.set()

    third = threading.Thread(target=put_third)
    third.start()
    assert not third_is_in.wait(0.2)
    written.set()
    assert third_is_in.wait(LIMIT_S)
    third.join()
    answers.close()


def test_a_disk_without_room_turns_the_answer_around_and_only_that() -> None:
    sent: list[Done | Failed] = []

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    answers = Answers(sent.append)
    answers.put(done(1), full)
    answers.put(done(2))
    answers.close()
    failed, well = sent
    assert isinstance(failed, Failed)
    assert (failed.batch, failed.disk_full, failed.out_of_memory) == (1, True, False)
    assert well == done(2)


def test_a_thread_that_cannot_go_on_takes_the_process_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[int, str]] = []
    monkeypatch.setattr(answers_module, "end", lambda status, why: ended.append((status, why)))

    def broken(_answer: Done | Failed) -> None:
        raise ZeroDivisionError("the pipe broke in an unforeseen way")

    answers = Answers(broken)
    answers.put(done(1))
    answers._thread.join(LIMIT_S)
    ((status, why),) = ended
    assert status == 1
    assert "ZeroDivisionError" in why
