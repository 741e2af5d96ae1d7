import dataclasses
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgdiffd.fleet.wire import (
    EXIT_POISONED,
    HEADER_BYTES,
    PROFILE_SLOTS,
    Done,
    Failed,
    FromWorker,
    Pulse,
    Ready,
    RunBatch,
    Start,
    ToWorker,
    UseProfile,
    body_length,
    pack_to_worker,
    unpack_from_worker,
)
from imgdiffd.method.messages import RewriteInput
from imgdiffd.method.profile import load_profile
from imgdiffd.pipeline import Stage
from imgdiffd.testing.worker import COMMAND
from imgdiffd.worker.serve import EXIT_PROTOCOL

SLOT = 3
LIMIT_S = 30


class Pipe:
    """The process of a fake worker, which the test sends frames by hand."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def send(self, *messages: ToWorker) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(map(pack_to_worker, messages)))
        self.process.stdin.flush()

    def receive(self) -> FromWorker | None:
        assert self.process.stdout is not None
        header = self.process.stdout.read(HEADER_BYTES)
        return unpack_from_worker(self.process.stdout.read(body_length(header))) if header else None

    def answer(self) -> FromWorker | None:
        """The next frame that is not a pulse."""
        while isinstance(frame := self.receive(), Pulse):
            continue
        return frame

    def close(self) -> tuple[int, str]:
        """End its input; returns the exit status and stderr."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.stderr is not None
        words = self.process.stderr.read().decode()
        return self.process.wait(LIMIT_S), words


def batch(number: int, *captions: str) -> RunBatch:
    return RunBatch(number, Stage.REWRITE, SLOT, tuple(RewriteInput(i, text, 0) for i, text in enumerate(captions)))


# A worker whose batches leave 200 MB of holes in its heap: blocks of 64 KB, all freed but the last.
HOLES = """
import ctypes, sys
from imgdiffd.testing.worker import FakeEngine
from imgdiffd.worker import serve
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
class Engine(FakeEngine):
    def run(self, stage, profile, inputs):
        blocks = [libc.malloc(65536) for _ in range(3000)]
        for block in blocks:
            ctypes.memset(block, 1, 65536)
        for block in blocks[:-1]:
            libc.free(block)
        return super().run(stage, profile, inputs)
setattr(serve, sys.argv[1], 0)
sys.exit(serve.serve(Engine))
"""


# A worker that writes the images of batch 1 only once it is computing batch 2, which ends as its argument says.
LATE = """
import errno, sys, threading
from imgdiffd.testing.worker import FakeEngine
from imgdiffd.worker import serve
second, runs, full = threading.Event(), [], OSError(errno.ENOSPC, "No space left on device")
class Engine(FakeEngine):
    def run(self, stage, profile, inputs):
        runs.append(stage)
        if len(runs) == 2:
            second.set()
            if sys.argv[1] == "fault":
                raise RuntimeError("CUDA error: device-side assert triggered")
        return super().run(stage, profile, inputs)
    def take_writes(self):
        return write if len(runs) == 1 else lambda: None
def write():
    if not second.wait(20):
        raise TimeoutError("the second batch did not begin")
    if sys.argv[1] == "full":
        raise full
sys.exit(serve.serve(Engine))
"""


def anonymous_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("RssAnon"))


@contextmanager
def spawned(folder: Path, command: Sequence[str] = COMMAND) -> Iterator[Pipe]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            pipe = Pipe(process)
            pipe.send(Start("mini", "cpu", (), str(folder)), UseProfile(SLOT, load_profile("default")))
            yield pipe
        finally:
            process.kill()


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    with spawned(tmp_path) as pipe:
        assert isinstance(pipe.answer(), Ready)
        yield pipe


def test_batches_are_answered_in_order(pipe: Pipe) -> None:
    pipe.send(*(batch(number, f"a house and {number} dogs") for number in (5, 3, 9)))
    answers = [pipe.answer() for _ in range(3)]
    assert [answer.batch for answer in answers if isinstance(answer, Done)] == [5, 3, 9]


@pytest.mark.parametrize("how", ["well", "full", "fault"])
def test_images_are_written_beside_the_next_batch(tmp_path: Path, how: str) -> None:
    """The answer still waits for them, comes before the next one's, and is the one that a full disk turns around."""
    with spawned(tmp_path, (sys.executable, "-P", "-c", LATE, how)) as pipe:
        assert isinstance(pipe.answer(), Ready)
        pipe.send(batch(1, "a dog"), batch(2, "a cat"))
        while pipe.receive() != Pulse(2):  # it runs, though the first is not answered
            continue
        first, second = pipe.answer(), pipe.answer()
        if how == "full":
            assert isinstance(first, Failed)
            assert first.disk_full
        else:
            assert isinstance(first, Done)
        assert first.batch == 1
        assert second is None if how == "fault" else isinstance(second, Done)


def test_closing_the_pipe_waits_for_images_under_way(tmp_path: Path) -> None:
    with spawned(tmp_path, (sys.executable, "-P", "-c", LATE, "well")) as pipe:
        assert isinstance(pipe.answer(), Ready)
        pipe.send(batch(1, "a dog"), batch(2, "a cat"))
        while pipe.receive() != Pulse(2):
            continue
        assert pipe.process.stdin is not None
        pipe.process.stdin.close()
        answers = [pipe.answer(), pipe.answer()]
        assert [answer.batch for answer in answers if isinstance(answer, Done)] == [1, 2]
        assert pipe.process.wait(LIMIT_S) == 0


def test_worker_says_which_batch_it_begins_before_it_runs_it(pipe: Pipe) -> None:
    pipe.send(batch(8, "a kill-worker dog"))
    frames = []
    while (frame := pipe.receive()) is not None:
        frames.append(frame)
    assert frames[-1] == Pulse(8)


def test_pulse_goes_on_while_a_stage_hangs(pipe: Pipe) -> None:
    pipe.send(batch(4, "a hang-worker dog"))
    seen = [pipe.receive() for _ in range(6)]
    assert seen.count(Pulse(4)) >= 4
    assert all(isinstance(frame, Pulse) for frame in seen)


def test_print_to_stdout_goes_to_the_log_and_breaks_no_frame(pipe: Pipe) -> None:
    pipe.send(batch(1, "a print-noise dog"), batch(2, "a dog"))
    answers = [pipe.answer(), pipe.answer()]
    assert [type(answer) for answer in answers] == [Done, Done]
    status, words = pipe.close()
    assert (status, words) == (0, "noise on stdout\n")


def test_a_stages_error_is_one_line_and_the_worker_lives(pipe: Pipe) -> None:
    pipe.send(batch(1, "a raise-error dog"), batch(2, "a dog"))
    failed, done = pipe.answer(), pipe.answer()
    assert isinstance(failed, Failed)
    assert not failed.out_of_memory
    assert failed.error == "ZeroDivisionError: the caption asked for an error"
    assert "Traceback" in failed.detail
    assert isinstance(done, Done)


def test_out_of_memory_is_told_apart_and_a_smaller_batch_fits(pipe: Pipe) -> None:
    pipe.send(batch(1, "a need-memory dog", "a cat"), batch(2, "a need-memory dog"))
    failed, done = pipe.answer(), pipe.answer()
    assert isinstance(failed, Failed)
    assert failed.out_of_memory
    assert isinstance(done, Done)


def test_device_fault_ends_the_process_with_its_own_status(pipe: Pipe) -> None:
    pipe.send(batch(1, "a fault-device dog"), batch(2, "a dog"))
    assert pipe.answer() is None
    status, words = pipe.close()
    assert status == EXIT_POISONED
    assert "device-side assert" in words


def test_a_worker_ends_its_batch_when_its_pipe_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WORKER_DELAY_S", "0.2")
    with spawned(tmp_path) as pipe:
        assert isinstance(pipe.answer(), Ready)
        pipe.send(batch(1, "a dog"), batch(2, "a cat"))
        while pipe.receive() != Pulse(1):
            continue
        assert pipe.process.stdin is not None
        pipe.process.stdin.close()
        answer = pipe.answer()
        assert isinstance(answer, Done)
        assert answer.batch == 1
        assert pipe.answer() is None  # what was queued behind it is dropped
        assert pipe.process.wait(LIMIT_S) == 0


def test_end_of_input_while_loading_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WORKER_START", "hang")
    with spawned(tmp_path) as pipe:
        assert isinstance(pipe.receive(), Pulse)
        assert pipe.close()[0] == 0


def test_broken_message_from_the_daemon_ends_the_process(pipe: Pipe) -> None:
    assert pipe.process.stdin is not None
    pipe.process.stdin.write(b"\x00\x00\x00\x02{}")
    status, words = pipe.close()
    assert status == EXIT_PROTOCOL
    assert "broken message from the daemon" in words


def test_batch_of_an_unsent_profile_breaks_the_protocol(pipe: Pipe) -> None:
    pipe.send(dataclasses.replace(batch(7, "a dog"), profile=SLOT + 1))
    assert pipe.answer() is None
    status, words = pipe.close()
    assert status == EXIT_PROTOCOL
    assert "batch 7 names profile 4, which was never sent" in words


def test_profile_beyond_the_last_slot_breaks_the_protocol(pipe: Pipe) -> None:
    frame = pack_to_worker(UseProfile(0, load_profile("default")))
    body = frame[HEADER_BYTES:].replace(b'"slot":0', b'"slot":%d' % PROFILE_SLOTS)
    assert pipe.process.stdin is not None
    pipe.process.stdin.write(len(body).to_bytes(HEADER_BYTES, "big") + body)
    assert pipe.close()[0] == EXIT_PROTOCOL


def test_worker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    # Both pipes are held open here, so that only the death signal can end the worker.
    child_in, to_worker = os.pipe()
    from_worker, child_out = os.pipe()
    source = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen({COMMAND!r}, stdin={child_in}, stdout={child_out})\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", source]
    with (
        open(to_worker, "wb") as stdin,
        open(from_worker, "rb") as stdout,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(child_in, child_out)
        ) as parent,
    ):
        os.close(child_in)
        os.close(child_out)
        assert parent.stdout is not None
        handle = os.pidfd_open(int(parent.stdout.readline()))
        try:
            stdin.write(pack_to_worker(Start("mini", "cpu", (), str(tmp_path))))
            stdin.flush()
            assert stdout.read(HEADER_BYTES)  # it talks, so it has bound its life to its parent's
            parent.kill()
            assert wait_ended(handle)
        finally:
            os.close(handle)


def wait_ended(handle: int) -> bool:
    """Whether the process behind a pidfd ends within the limit."""
    return bool(select.select([handle], [], [], LIMIT_S)[0])


def test_talking_needs_no_heavy_library() -> None:
    source = (
        "import sys, imgdiffd.worker.serve, imgdiffd.fleet.device; print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("when", ["GIVE_BACK_S", "IDLE_S"])
def test_memory_that_a_batch_left_unused_is_given_back(tmp_path: Path, when: str) -> None:
    with spawned(tmp_path, (sys.executable, "-c", HOLES, when)) as pipe:
        assert isinstance(pipe.answer(), Ready)
        before_mb = anonymous_mb(pipe.process.pid)
        for number in range(3):
            pipe.send(batch(number, "a dog"))
            assert isinstance(pipe.answer(), Done)
        until = time.monotonic() + LIMIT_S
        while anonymous_mb(pipe.process.pid) > before_mb + 50 and time.monotonic() < until:
            time.sleep(0.05)
        assert anonymous_mb(pipe.process.pid) < before_mb + 50
