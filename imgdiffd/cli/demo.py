"""`imgdiffd demo`: the real daemon on the miniature bundle, from a caption file to a dataset, in one folder."""

import hashlib
import json
import os
import shlex
import shutil
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
from imgdiffd.cli.usage import PROGRAM
from imgdiffd.errors import DaemonError, counted
from imgdiffd.job import TERMINAL_JOB_STATES
from imgdiffd.settings import NAME, PREFIX, load_settings
from imgdiffd.status import Funnel, Status

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
_SOCKET_PATH_BYTES = 100  # the kernel's limit is 107 with its closing zero
_HEADING = "# Written by every run of `imgdiffd demo`. For settings of your own, copy the file."


def write_settings(folder: Path, *, removal: bool) -> Path:
    """The settings file of the demo in `folder`; returns its path. Raises DaemonError where another is in its place."""
    file = folder / NAME
    if file.exists() and not file.read_text("utf-8", "replace").startswith(_HEADING):
        raise DaemonError(f"{file} is not a demo's", hint="name another folder with --folder")
    socket_path = folder / "imgdiffd.sock"
    if len(os.fsencode(socket_path)) > _SOCKET_PATH_BYTES:
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        socket_path = Path(tempfile.gettempdir()) / f"imgdiffd-demo-{os.getuid()}-{digest}.sock"
    lines = {
        "state_folder": ".",
        "socket_path": os.path.relpath(socket_path, folder) if socket_path.parent == folder else str(socket_path),
        "bundle": "mini",
        "devices": ["cpu", "cpu"],
        "removal": removal,
        "keep_pictures": "all",  # few, and people look at them
        "min_free_gb": 0.2,
        "threads_per_device": 1,  # models this small gain nothing from a second one
    }
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
    durable.write({file: f"{_HEADING}\n{text}"})
    return file


@contextmanager
def _daemon(folder: Path, settings: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running daemon, stopped in order on the way out; its log is `folder/daemon.log`."""
    with (folder / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "imgdiffd", "serve", "--config", settings],
            env={key: value for key, value in os.environ.items() if not key.startswith(PREFIX)},  # the same everywhere
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


def _run(folder: Path, settings: Path, captions: Path | None, console: Console) -> Funnel:
    """Take the captions through a daemon of these settings."""
    log, inbox = folder / "daemon.log", folder / "inbox"
    with (
        resources.as_file(resources.files("imgdiffd.captions") / DEMO_CAPTIONS) as built_in,
        _daemon(folder, settings) as process,
        Client(load_settings(settings, {}).socket_path) as client,
    ):
        console.print(f"daemon: process {process.pid}, miniature bundle, two CPU workers; log in {log}")
        _wait_alive(client, process, log)
        source = captions or built_in
        if not any(job.name == source.name for job in client.every_job()):
            (inbox / "failed" / f"{source.name}.reason.txt").unlink(missing_ok=True)  # of an earlier try
            _drop(source, inbox)
            console.print(f"dropped {source.name} into {inbox}")
        follow(client.status, lambda status: _over(status, source.name, inbox), console)
        return client.funnel()


def run_demo(folder: Path, captions: Path | None, console: Console, *, removal: bool = False) -> None:
    """Take `captions` (the built-in file where None) through the daemon; leave everything under `folder`.

    With `removal`, object removal too, and the dataset has both products. A folder that an earlier run left is
    continued: what is done stays done. Raises DaemonError and ExportError.
    """
    from imgdiffd.cli.ending import finishing_of
    from imgdiffd.export.dataset import export_dataset
    from imgdiffd.export.folder import ExportFolder
    from imgdiffd.store import Reader

    if captions is not None and not captions.is_file():
        raise DaemonError(f"{captions}: no such file", hint="name a caption file")
    signal.signal(signal.SIGTERM, _leave)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    settings = write_settings(folder, removal=removal)
    with ExportFolder.claimed(folder / "dataset"):  # refused now rather than after the work
        pass
    started = time.monotonic()
    funnel = _run(folder, settings, captions, console)
    with Reader.open(folder / "state.db") as reader:
        made = export_dataset(
            reader,
            folder / "pictures",
            folder / "dataset",
            sheet=folder / "contact-sheet.png",
            finishing=finishing_of(reader, reader.made()),
        )
        first = next(iter(reader.samples()), None)
    replaced, removed = (made.samples.get(kind, 0) for kind in ("replacement", "removal"))
    also = f" and {removed} of object removal" if removed else ""
    console.print(funnel_table(funnel))
    console.print(
        f"{counted(replaced, 'sample')}{also} in {time.monotonic() - started:.0f} s\n"
        f"  dataset        {folder / 'dataset'}\n"
        f"  contact sheet  {folder / 'contact-sheet.png'}\n"
        f"  state          {folder / 'state.db'}\n\n"
        "Go on with (the last one is a daemon that takes what you drop into its inbox):",
        highlight=False,
    )
    for line in next_commands(settings, first.item if first else 1):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def next_commands(settings: Path, item: int) -> tuple[str, str, str]:
    """Three commands on the demo's own settings file, to be typed where the user stands."""
    program, config = _program(), _typed(settings)
    export = _typed(settings.parent / "export")
    return (
        f"{program} explain {item} --config {config}",
        f"{program} export {export} --config {config}",
        f"{program} serve --config {config}",
    )


def _program() -> str:
    """How the program that is running is called from here."""
    called = Path(sys.argv[0])
    if called.name != PROGRAM:  # python -m imgdiffd
        return f"{_typed(Path(sys.executable))} -m {PROGRAM}"
    in_path = shutil.which(PROGRAM)
    outside = Path.cwd() not in called.absolute().parents
    return PROGRAM if outside and in_path and Path(in_path) == called.absolute() else _typed(called.absolute())


def _typed(path: Path) -> str:
    """The path as one types it: relative where that leads downwards."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if here in path.parents else path))
