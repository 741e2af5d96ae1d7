"""A machine in QEMU whose power can be cut, and what its disk holds afterwards.

It owns the command line, the serial console and the repair of the file system; it does not know what the guest does.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

FOLDER = os.environ.get("IMGDIFFD_POWERCUT", "")
LIMIT_S = 300.0  # without acceleration, on a busy machine
DISK_MIB = 512
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_KERNEL = "console=ttyS0 rdinit=/init loglevel=4 panic=-1 random.trust_cpu=on mitigations=off"


def make_disk(path: Path) -> None:
    """An empty ext4 file system, mounted with the defaults."""
    _tool("mke2fs", "-q", "-t", "ext4", "-F", str(path), f"{DISK_MIB}M")


@contextmanager
def powered(folder: Path, disk: Path) -> Iterator[Iterator[str]]:
    """The lines that the guest says on its console; leaving cuts the power, as does saying nothing to its end."""
    command = [  # emulated without KVM, which a machine may have in a form that hangs
        *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-m", "1024"),
        *("-cpu", "max", "-accel", "tcg", "-kernel", str(folder / "vmlinuz"), "-append", _KERNEL),
        *("-initrd", str(folder / "root.cpio")),
        *("-drive", f"file={disk},if=virtio,format=raw,cache=writeback"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as qemu:
        assert qemu.stdout is not None
        limit = Timer(LIMIT_S, qemu.kill)
        limit.start()
        try:
            yield (line.rstrip("\r\n") for line in qemu.stdout)
        finally:
            limit.cancel()
            qemu.kill()


def files_on(disk: Path, target: Path) -> None:
    """What lies on a copy of `disk` once its file system was repaired as at a mount, as files below `target`."""
    copy = target.with_suffix(".img")
    shutil.copyfile(disk, copy)
    checked = subprocess.run(["e2fsck", "-fy", copy], env=_environment(), capture_output=True, text=True, check=False)
    assert checked.returncode in (0, 1), checked.stdout + checked.stderr
    target.mkdir()
    _tool("debugfs", "-R", f"rdump / {target}", str(copy))
    copy.unlink()


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _PATH}


def _tool(*command: str) -> None:
    subprocess.run(command, env=_environment(), capture_output=True, check=True)
