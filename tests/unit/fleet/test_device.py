import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from imgdiffd.errors import DeviceStartError, OutOfMemoryError, StageError, WorkerDiedError
from imgdiffd.fleet import worker_process
from imgdiffd.fleet.device import DeviceProcess
from imgdiffd.fleet.wire import PROFILE_SLOTS, Done, Start, ToWorker, UseProfile, pack_to_worker
from imgdiffd.method.messages import RewriteInput, RewriteOutput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.pipeline import Stage, seed_of
from imgdiffd.testing.worker import COMMAND

pytestmark = pytest.mark.anyio

PROFILE = load_profile("default")
LIMIT_S = 120
DEADLINE_S = 60.0


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[DeviceProcess]:
    process = DeviceProcess("gpu7", Start("mini", "cpu", ("clip", "blip"), str(tmp_path)), command=COMMAND)
    with anyio.fail_after(LIMIT_S):
        yield process
    await process.stop(0)


async def rewrite(device: DeviceProcess, *captions: str, deadline_s: float = DEADLINE_S) -> Done:
    inputs = [RewriteInput(item, caption, 0) for item, caption in enumerate(captions)]
    return await device.run(Stage.REWRITE, PROFILE, inputs, deadline_s)


def alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_start_tells_what_it_loads_and_what_it_holds(device: DeviceProcess) -> None:
    loading: list[str] = []
    device.on_loading = loading.append
    ready = await device.start()
    assert loading == ["clip", "blip"]
    assert device.models == ready.models == {"clip": "fake clip", "blip": "fake blip"}
    assert device.versions["imgdiffd"]
    assert device.alive
    assert (device.pid, device.generation) == (ready.pid, 1)
    assert device.last_pulse is not None


async def test_answer_belongs_to_its_batch(device: DeviceProcess) -> None:
    await device.start()
    answers: dict[int, Done] = {}

    async def ask(number: int) -> None:
        answers[number] = await rewrite(device, *[f"house {number}"] * number)

    async with anyio.create_task_group() as tasks:
        for number in range(1, 7):
            tasks.start_soon(ask, number)
    assert {number: len(done.outputs) for number, done in answers.items()} == {n: n for n in range(1, 7)}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ToWorker, int]]:
    """Every message that goes to a worker from now on, and the bytes of its frame."""
    messages: list[tuple[ToWorker, int]] = []

    def pack(message: ToWorker) -> bytes:
        frame = pack_to_worker(message)
        messages.append((message, len(frame)))
        return frame

    monkeypatch.setattr(worker_process, "pack_to_worker", pack)
    return messages


async def test_profile_crosses_the_pipe_once_and_batches_name_it(
    device: DeviceProcess, sent: list[tuple[ToWorker, int]]
) -> None:
    await device.start()
    for _ in range(3):
        await rewrite(device, "a dog")
    assert [message.kind for message, _ in sent] == ["start", "profile", "batch", "batch", "batch"]
    assert sum(count for message, count in sent if message.kind == "batch") < len(PROFILE.model_dump_json())
    assert device.pid is not None
    os.kill(device.pid, signal.SIGKILL)
    await device.wait_dead()
    sent.clear()
    await device.start()
    assert len((await rewrite(device, "a dog")).outputs) == 1
    assert [message.kind for message, _ in sent] == ["start", "profile", "batch"], "a new process was told nothing yet"


async def test_worker_keeps_few_profiles_and_batches_run_under_theirs(
    device: DeviceProcess, sent: list[tuple[ToWorker, int]]
) -> None:
    await device.start()
    profiles = [PROFILE.model_copy(update={"seed": seed}) for seed in range(PROFILE_SLOTS + 1)]
    used = [*profiles[:-1], profiles[0], profiles[-1], profiles[0], profiles[1]]
    seeds: list[object] = []
    async with anyio.create_task_group() as tasks:

        async def ask(place: int, profile: Profile) -> None:
            done = await device.run(Stage.REWRITE, profile, [RewriteInput(1, "a dog", 0)], DEADLINE_S)
            (output,) = done.outputs
            assert isinstance(output, RewriteOutput)
            seeds[place] = output.seed

        for place, profile in enumerate(used):
            seeds.append(None)
            tasks.start_soon(ask, place, profile)
    assert seeds == [seed_of(profile.seed, "a dog", 0, "rewrite") for profile in used]
    told = [message for message, _ in sent if isinstance(message, UseProfile)]
    assert {message.slot for message in told} == set(range(PROFILE_SLOTS))
    assert [message.profile.seed for message in told] == [*range(PROFILE_SLOTS + 1), 1], "1 was unused for longest"


async def test_failed_batch_leaves_the_worker_alive(device: DeviceProcess) -> None:
    await device.start()
    with pytest.raises(StageError, match="gpu7: rewrite of 2 items: ZeroDivisionError") as caught:
        await rewrite(device, "a dog", "a raise-error dog")
    assert (caught.value.device, caught.value.stage, caught.value.items) == ("gpu7", "rewrite", (0, 1))
    with pytest.raises(OutOfMemoryError):
        await rewrite(device, "a dog", "a need-memory dog")
    assert len((await rewrite(device, "a need-memory dog")).outputs) == 1
    assert device.generation == 1


async def test_death_fails_both_batches_but_blames_only_the_one_begun(device: DeviceProcess) -> None:
    await device.start()
    errors: dict[str, WorkerDiedError] = {}

    async def ask(caption: str) -> None:
        with pytest.raises(WorkerDiedError, match="SIGKILL, as the kernel does when memory runs out") as caught:
            await rewrite(device, caption)
        errors[caption] = caught.value

    async with anyio.create_task_group() as tasks:
        for caption in ("a kill-worker dog", "an innocent dog", "a third dog"):
            tasks.start_soon(ask, caption)
    assert [error.begun for error in errors.values()].count(True) == 1
    assert errors["a kill-worker dog"].begun
    assert not device.alive


# Writes the images of the first batch until the process dies of the second.
_NEVER_WRITTEN = """
import sys, threading
from imgdiffd.testing.worker import FakeEngine
from imgdiffd.worker.serve import serve
class Engine(FakeEngine):
    def take_writes(self):
        return threading.Event().wait
sys.exit(serve(Engine))
"""


async def test_death_blames_the_batch_that_ran_beside_writing(tmp_path: Path) -> None:
    """And the one whose images were being written: neither was alone, so each is tried again alone."""
    command = (sys.executable, "-P", "-c", _NEVER_WRITTEN)
    device = DeviceProcess("gpu7", Start("mini", "cpu", (), str(tmp_path)), command=command)
    blamed: list[str] = []

    async def ask(caption: str) -> None:
        with pytest.raises(WorkerDiedError) as caught:
            await rewrite(device, caption)
        blamed.extend([caption] * caught.value.begun)

    with anyio.fail_after(LIMIT_S):
        await device.start()
        async with anyio.create_task_group() as tasks:
            for caption in ("a dog", "a kill-worker dog"):
                tasks.start_soon(ask, caption)
    assert sorted(blamed) == ["a dog", "a kill-worker dog"]


async def test_next_generation_goes_on_with_the_work(device: DeviceProcess) -> None:
    await device.start()
    first = device.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await device.wait_dead()
    assert "SIGKILL" in device.exit_reason
    with pytest.raises(WorkerDiedError) as caught:
        await rewrite(device, "a dog")
    assert not caught.value.begun
    await device.start()
    assert device.generation == 2
    assert device.pid != first
    assert len((await rewrite(device, "a dog")).outputs) == 1


async def test_device_fault_is_named_in_the_error(device: DeviceProcess) -> None:
    await device.start()
    with pytest.raises(WorkerDiedError, match=r"device faulted.*device-side assert"):
        await rewrite(device, "a fault-device dog")


async def test_a_stage_past_its_deadline_is_killed_despite_its_pulse(device: DeviceProcess) -> None:
    await device.start()
    pid = device.pid
    with pytest.raises(WorkerDiedError, match=r"rewrite did not end within 2 s") as caught:
        await rewrite(device, "a hang-worker dog", deadline_s=2.0)
    assert caught.value.begun
    assert not alive(pid)


async def test_deadline_of_a_queued_batch_does_not_run(tmp_path: Path) -> None:
    start = Start("mini", "cpu", (), str(tmp_path))
    device = DeviceProcess("cpu", start, command=COMMAND, environment={"FAKE_WORKER_DELAY_S": "1.2"})
    with anyio.fail_after(LIMIT_S):
        await device.start()
        async with anyio.create_task_group() as tasks:
            for caption in ("a dog", "a cat", "a horse"):
                tasks.start_soon(partial(rewrite, device, caption, deadline_s=3.0))
    assert device.alive
    await device.stop(0)


async def test_silent_worker_is_killed(tmp_path: Path) -> None:
    start = Start("mini", "cpu", (), str(tmp_path))
    device = DeviceProcess("cpu", start, command=COMMAND, pulse_timeout_s=1.0)
    with anyio.fail_after(LIMIT_S):
        await device.start()
        with pytest.raises(WorkerDiedError, match="no sign of life for 1 s"):
            await rewrite(device, "a mute-worker dog")
        assert not alive(device.pid)


async def test_daemon_that_was_held_up_itself_blames_no_worker(tmp_path: Path) -> None:
    start = Start("mini", "cpu", (), str(tmp_path))
    device = DeviceProcess("cpu", start, command=COMMAND, pulse_timeout_s=2.0)
    with anyio.fail_after(LIMIT_S):
        await device.start()
        time.sleep(3)  # noqa: ASYNC251 the event loop is to stand still for more than a pulse timeout
        assert len((await rewrite(device, "a dog")).outputs) == 1
    await device.stop(0)


async def test_a_cancelled_run_harms_neither_worker_nor_next_batch(device: DeviceProcess) -> None:
    await device.start()
    for _ in range(5):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await rewrite(device, "a dropped dog")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rewrite, device, "a dropped dog")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    done = await rewrite(device, "a dog", "a cat")
    assert len(done.outputs) == 2
    assert device.generation == 1


async def test_deadline_holds_for_a_batch_that_nobody_waits_for(device: DeviceProcess) -> None:
    await device.start()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(rewrite, device, "a hang-worker dog", deadline_s=1.0))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    await device.wait_dead()
    assert "did not end within 1 s" in device.exit_reason


async def test_stop_lets_the_batch_under_way_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start("mini", "cpu", (), str(tmp_path))
    device = DeviceProcess("begins", start, command=COMMAND, environment={"FAKE_WORKER_DELAY_S": "0.5"})
    outcomes: dict[str, object] = {}
    begun = anyio.Event()
    log = logging.getLogger("imgdiffd.fleet.device.begins")
    monkeypatch.setattr(log, "info", lambda *_: begun.set())

    async def ask(caption: str) -> None:
        try:
            outcomes[caption] = await rewrite(device, caption)
        except WorkerDiedError as error:
            outcomes[caption] = error

    with anyio.fail_after(LIMIT_S):
        await device.start()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, "a print-noise dog")
            tasks.start_soon(ask, "second dog")
            await begun.wait()
            await device.stop(10)
    assert isinstance(outcomes["a print-noise dog"], Done)
    second = outcomes["second dog"]
    assert isinstance(second, WorkerDiedError)
    assert not second.begun
    assert not device.alive
    assert device.exit_reason.startswith("ended with status 0")


async def test_stop_kills_what_does_not_end_and_blames_no_batch(device: DeviceProcess) -> None:
    await device.start()
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(WorkerDiedError, match=r"did not end within 0\.2 s of being asked to") as caught:
                await rewrite(device, "a hang-worker dog")
            assert not caught.value.begun

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        await device.stop(0.2)
    assert not alive(device.pid)
    await device.stop(0.2)  # again is harmless


@pytest.mark.parametrize(
    ("how", "words", "status"),
    [("refuse", "bundle mini: refused", 78), ("crash", "the start was told to crash", 1)],
)
async def test_failed_start_carries_the_exit_reason_of_the_worker(
    tmp_path: Path, how: str, words: str, status: int
) -> None:
    start = Start("mini", "cpu", (), str(tmp_path))
    device = DeviceProcess("cpu", start, command=COMMAND, environment={"FAKE_WORKER_START": how})
    with anyio.fail_after(LIMIT_S), pytest.raises(DeviceStartError, match=words) as caught:
        await device.start()
    assert caught.value.exit_status == status
    assert not device.alive


async def test_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    start = Start("mini", "cpu", ("clip",), str(tmp_path))
    device = DeviceProcess("cpu", start, command=COMMAND, environment={"FAKE_WORKER_START": "hang"})
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            device.on_loading = lambda _: tasks.cancel_scope.cancel()
            tasks.start_soon(device.start)
        await device.wait_dead()
    assert not alive(device.pid)


@pytest.mark.parametrize(
    "source",
    ["print('hello, this is no frame at all')", "import os; os.write(1, bytes([0, 0, 0, 2]) + b'{}')"],
    ids=["no frame", "no message"],
)
async def test_worker_that_breaks_the_protocol_is_killed(tmp_path: Path, source: str) -> None:
    command = [sys.executable, "-c", f"{source}; import sys; sys.stdout.flush(); sys.stdin.buffer.read()"]
    device = DeviceProcess("cpu", Start("mini", "cpu", (), str(tmp_path)), command=command)
    with anyio.fail_after(LIMIT_S), pytest.raises(DeviceStartError, match="broke the protocol"):
        await device.start()
    assert not alive(device.pid)


async def test_command_that_does_not_exist_is_a_start_error(tmp_path: Path) -> None:
    device = DeviceProcess("cpu", Start("mini", "cpu", (), str(tmp_path)), command=["/nowhere/python"])
    with pytest.raises(DeviceStartError, match="No such file"):
        await device.start()


async def test_what_the_worker_prints_reaches_the_log(device: DeviceProcess, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "imgdiffd.fleet.device.gpu7")
    await device.start()
    await rewrite(device, "a print-noise dog")
    await device.stop(5)
    assert "noise on stdout" in caplog.messages
    assert device.exit_reason.endswith("noise on stdout")


async def test_answer_that_fits_other_items_breaks_the_protocol(tmp_path: Path) -> None:
    source = (
        "import sys\n"
        "from imgdiffd.method import messages as message\n"
        "from imgdiffd.fleet import wire as m\n"
        "def read():\n"
        "    n = m.body_length(sys.stdin.buffer.read(4))\n"
        "    return m.unpack_to_worker(sys.stdin.buffer.read(n))\n"
        "def send(x):\n"
        "    sys.stdout.buffer.write(m.pack_from_worker(x)); sys.stdout.buffer.flush()\n"
        "read(); send(m.Ready(1)); read(); batch = read()\n"
        "send(m.Done(batch.id, (message.CompareOutput(0, {}),), 0.0)); read()\n"
    )
    device = DeviceProcess("cpu", Start("mini", "cpu", (), str(tmp_path)), command=[sys.executable, "-c", source])
    with anyio.fail_after(LIMIT_S):
        await device.start()
        with pytest.raises(WorkerDiedError, match="does not fit its rewrite inputs"):
            await rewrite(device, "a dog")
