"""`imgdiffd demo`: the real daemon on the miniature bundle, from a caption file to a dataset, in one folder."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import FrameType

from rich.console import Console

from imgdiffd import durable
from imgdiffd.api.client import Client
from imgdiffd.captions import DEMO_CAPTIONS
from imgdiffd.cli.screen import follow
from imgdiffd.cli.terminal import funnel_table
from imgdiffd.errors import DaemonError
from imgdiffd.job import TERMINAL_JOB_STATES
from imgdiffd.status import Status

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 107 with its closing zero


def _socket_path(folder: Path) -> Path:
    path = folder / "imgdiffd.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    return Path(tempfile.gettempdir()) / f"imgdiffd-demo-{os.getuid()}-{os.getpid()}.sock"


def _environment(folder: Path, socket_path: Path, removal: bool) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("IMGDIFFD_")}
    return inherited | {
        "IMGDIFFD_CONFIG": os.devnull,  # the demo is the same on every machine
        "IMGDIFFD_STATE_FOLDER": str(folder),
        "IMGDIFFD_INBOX_FOLDER": str(folder / "inbox"),
        "IMGDIFFD_SOCKET_PATH": str(socket_path),
        "IMGDIFFD_BUNDLE": "mini",
        "IMGDIFFD_DEVICES": "cpu,cpu",
        "IMGDIFFD_REMOVAL": str(removal).lower(),
        "IMGDIFFD_KEEP_PICTURES": "all",  # few, and people look at them
        "IMGDIFFD_MIN_FREE_GB": "0.2",
        "IMGDIFFD_THREADS_PER_DEVICE": "1",  # models this small gain nothing from a second one
    }


@contextmanager
def _daemon(folder: Path, socket_path: Path, removal: bool) -> Iterator[subprocess.Popen[bytes]]:
    """A running daemon, stopped in order on the way out; its log is `folder/daemon.log`."""
    with (folder / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "imgdiffd", "serve"],
            env=_environment(folder, socket_path, removal),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_alive(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not client.alive():
        if process.poll() is not None:
            last = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
            raise DaemonError(
                f"the daemon ended with status {process.returncode}: {' / '.join(last)}", hint=f"see {log}"
            )
        if time.monotonic() > deadline:
            raise DaemonError(f"the daemon did not answer within {START_TIMEOUT_S:.0f} s", hint=f"see {log}")
        time.sleep(0.1)


def _drop(captions: Path, inbox: Path) -> None:
    """Put the caption file into the watch folder as a careful user would: whole, under its name, at once."""
    durable.make_folder(inbox)
    durable.write({inbox / captions.name: captions.read_bytes()})


def _over(status: Status, name: str, inbox: Path) -> bool:
    """Whether the job called `name` and its removals have ended.

    Raises DaemonError when they cannot: a refused file, no device left.
    """
    refusal = inbox / "failed" / f"{name}.reason.txt"
    if refusal.exists():
        why = " ".join(refusal.read_text("utf-8").split())
        raise DaemonError(f"the daemon refused {name}: {why}", hint="give another file with --captions")
    if status.devices and all(device.state == "parked" for device in status.devices):
        raise DaemonError(
            f"no device can start: {status.devices[0].detail}", hint="see daemon.log in the demo's folder"
        )
    jobs = [job for job in status.jobs if job.name == name]
    waiting = not status.no_removal and any(job.removal.waiting for job in jobs)
    return bool(jobs) and all(job.state in TERMINAL_JOB_STATES for job in jobs) and not waiting


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Turn SIGTERM into an exit that passes through `_daemon`: nothing is left running."""
    raise SystemExit(143)


def run_demo(folder: Path, captions: Path | None, console: Console, *, removal: bool = False) -> None:
    """Take `captions` (the built-in file where None) through the daemon; leave everything under `folder`.

    With `removal`, object removal too, and the dataset has both products. A folder that an earlier run left is
    continued: what is done stays done. Raises DaemonError.
    """
    from imgdiffd.export.dataset import export_dataset
    from imgdiffd.store import Reader

    if captions is not None and not captions.is_file():
        raise DaemonError(f"{captions}: no such file", hint="name a caption file")
    signal.signal(signal.SIGTERM, _leave)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    socket_path = _socket_path(folder)
    started = time.monotonic()
    with (
        resources.as_file(resources.files("imgdiffd.captions") / DEMO_CAPTIONS) as built_in,
        _daemon(folder, socket_path, removal) as process,
        Client(socket_path) as client,
    ):
        console.print(
            f"daemon: process {process.pid}, miniature bundle, two CPU workers; log in {folder / 'daemon.log'}"
        )
        _wait_alive(client, process, folder / "daemon.log")
        source = captions or built_in
        if not any(job.name == source.name for job in client.every_job()):
            (folder / "inbox" / "failed" / f"{source.name}.reason.txt").unlink(missing_ok=True)  # of an earlier try
            _drop(source, folder / "inbox")
            console.print(f"dropped {source.name} into {folder / 'inbox'}")
        follow(client.status, lambda status: _over(status, source.name, folder / "inbox"), console)
        funnel = client.funnel()
    with Reader.open(folder / "state.db") as reader:
        made = export_dataset(reader, folder / "pictures", folder / "dataset", sheet=folder / "contact-sheet.png")
    also = f" and {made.removals} of object removal" if made.removals else ""
    console.print(funnel_table(funnel))
    console.print(
        f"{made.samples} samples{also} in {time.monotonic() - started:.0f} s\n"
        f"  dataset        {folder / 'dataset'}\n"
        f"  contact sheet  {folder / 'contact-sheet.png'}\n"
        f"  state          {folder / 'state.db'}",
        highlight=False,
    )
