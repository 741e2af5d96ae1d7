"""A container that boots a real systemd with the service installed, for as long as a test lasts.

It owns the boot, the way in and the end; it does not know what is tested. What the machine writes is gone with it.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imgdiffd.status import Status

FOLDER = os.environ.get("IMGDIFFD_SYSTEMD", "")
LIMIT_S = 240.0
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_SETTINGS = 'devices = ["cpu", "cpu"]\nthreads_per_device = 1\nmin_free_gb = 0.01\nsettle_s = 0.2\npoll_s = 0.2\n'


class Machine:
    """A booted container; `leader` is its systemd, as seen from outside."""

    def __init__(self, leader: int) -> None:
        self.leader = leader

    def run(self, *command: str, user: str = "", given: str = "", may_fail: bool = False) -> str:
        """What `command` prints inside, both streams; AssertionError where it fails."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        become = ["runuser", "-u", user, "--"] if user else []
        ended = subprocess.run(
            [*enter, *become, *command],
            env=_ENVIRONMENT,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        assert may_fail or ended.returncode == 0, f"{' '.join(command)}: {ended.returncode}: {ended.stdout}"
        return ended.stdout.strip()

    def fetch(self, inside: str, to: Path) -> Path:
        """A copy of one of the machine's folders, without sockets."""
        source = Path(f"/proc/{self.leader}/root", inside.lstrip("/"))
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("*.sock"))
        return to

    def write(self, inside: str, text: str) -> None:
        """Put a file into the machine, as its root."""
        self.run("mkdir", "-p", str(Path(inside).parent))
        self.run("tee", inside, given=text)

    def kill(self, name: str, *processes: str) -> None:
        """Send a signal, as the machine's root."""
        self.run("sh", "-c", 'kill "$@"', "kill", f"-{name}", *processes)  # a shell's own: the machine is small

    def show(self, name: str, unit: str = "imgdiffd.service") -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit)

    def status(self, user: str = "alice") -> Status:
        """What `imgdiffd status` answers `user`."""
        return Status.model_validate_json(self.run("imgdiffd", "status", "--json", user=user))

    def journal(self) -> str:
        """Everything that the journal has of the two units."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", "imgdiffd.service", "-u", "imgdiffd.socket")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until `condition` holds: the machine's processes are not ours to wait for."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come:\n{self.journal()[-4000:]}"
            time.sleep(0.2)

    def drop(self, name: str, captions: list[str], user: str = "alice") -> None:
        """A caption file, copied into the inbox by `user`."""
        self.write(f"/tmp/{name}", "".join(f"{caption}\n" for caption in captions))
        self.run("cp", f"/tmp/{name}", "/var/lib/imgdiffd/inbox/", user=user)


def _leader(nspawn: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + LIMIT_S
    processes = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    while True:
        assert nspawn.poll() is None, f"systemd-nspawn ended with {nspawn.returncode}"
        for pid in processes.read_text().split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                return int(pid)
        assert time.monotonic() < deadline, "the machine did not start"
        time.sleep(0.02)


@contextmanager
def booted(folder: Path, log: Path) -> Iterator[Machine]:
    """A running machine with the members `alice` (of the group) and `bob` (not); powered off at the end."""
    spawn = ["unshare", "-m", "--propagation", "private", "systemd-nspawn", "-q", "-D", str(folder / "root")]
    spawn += ["--volatile=overlay", "--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe"]
    spawn += ["--machine=imgdiffd"]
    with log.open("wb") as console, _devices_group() as enter:
        nspawn = subprocess.Popen([*enter, *spawn], stdout=console, stderr=console, env=_ENVIRONMENT)
        yield from _running(nspawn)


@contextmanager
def _devices_group() -> Iterator[list[str]]:
    """A control group (version 1) of the machine's own, in which its systemd may say who may use which devices.

    Yields what to put before a command that is to run there. In version 2 systemd needs no such group.
    """
    devices = Path("/sys/fs/cgroup/devices")
    group = devices / f"imgdiffd-{os.getpid()}"
    if not devices.is_dir():
        yield []
        return
    group.mkdir()
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        subprocess.run(["find", str(group), "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], check=True)


def _running(nspawn: "subprocess.Popen[bytes]") -> Iterator[Machine]:
    try:
        machine = Machine(_leader(nspawn))
        machine.until(lambda: machine.run("systemctl", "is-system-running", may_fail=True) == "running", "the boot")
        machine.run("useradd", "-m", "-G", "imgdiffd", "alice")
        machine.run("useradd", "-m", "bob")
        machine.write("/etc/imgdiffd/imgdiffd.toml", _SETTINGS)
        yield machine
    finally:
        nspawn.terminate()  # systemd-nspawn powers the machine off
        try:
            nspawn.wait(30)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()
