"""The installed service on a machine whose kernel has just loaded a made-up NVIDIA driver."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import FOLDER, Machine, booted

pytestmark = pytest.mark.skipif(not FOLDER, reason="`make test-systemd` builds the machine and runs this")

NODES = [
    *("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia3"),
    *("/dev/nvidia-uvm", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"),
]
OTHER = "/dev/other"

# The kernel: what it lists of its drivers before and after nvidia_uvm is loaded, which loads nvidia too.
KERNEL = r"""
mount -t tmpfs none /proc/driver
cp /proc/devices /run/devices
sed '1a 195 nvidia\n195 nvidiactl\n508 nvidia-uvm\n509 nvidia-caps' /run/devices > /run/loaded
mount --bind /run/devices /proc/devices
for minor in 0 1 3; do
    mkdir -p /proc/driver/nvidia/gpus/$minor
    printf 'Device Minor: \t %s\n' $minor > /proc/driver/nvidia/gpus/$minor/information
done
instance=/proc/driver/nvidia/capabilities/gpu3/mig/gi1
mkdir -p $instance/ci0
echo 'DeviceFileMinor: 12' > $instance/access
echo 'DeviceFileMinor: 13' > $instance/ci0/access
mknod -m 666 /dev/other c 507 0
mount -o remount,rw,bind /sys/fs/cgroup/devices && systemctl daemon-reexec || true
"""
LOADING = """[Unit]
ConditionCapability=
[Service]
ExecStart=
ExecStart=/bin/sh -c "test %i != nvidia_uvm || cat /run/loaded > /run/devices"
"""
# As NVIDIA's: with -u, the minors are those of nvidia-uvm.
NVIDIA_MODPROBE = r"""#!/bin/sh
set -e
major() { sed -n "s/^ *\([0-9]*\) $1$/\1/p" /proc/devices; }
node() { test -e "$1" || mknod -m 666 "$1" c "$(major "$2")" "$3"; }
of=nvidia
while test $# != 0; do
    case $1 in
        -u) of=nvidia-uvm ;;
        -f) shift; mkdir -p /dev/nvidia-caps; minor=$(sed -n 's/^DeviceFileMinor: //p' "$1")
            node /dev/nvidia-caps/nvidia-cap$minor nvidia-caps $minor ;;
        -c) shift
            case $of-$1 in
                nvidia-uvm-*) node /dev/nvidia-uvm nvidia-uvm $1 ;;
                nvidia-255) node /dev/nvidiactl nvidia 255 ;;
                *) node /dev/nvidia$1 nvidia $1 ;;
            esac ;;
    esac
    shift
done
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with booted(Path(FOLDER), tmp_path / "console.log") as machine:
        machine.run("sh", "-c", KERNEL)
        machine.write("/etc/systemd/system/modprobe@.service.d/fake.conf", LOADING)
        machine.write("/usr/bin/nvidia-modprobe", NVIDIA_MODPROBE)
        machine.run("chmod", "755", "/usr/bin/nvidia-modprobe")
        looking = f"[Service]\nExecStartPost=-/bin/cat {' '.join(NODES)} {OTHER}\n"
        machine.write("/etc/systemd/system/imgdiffd.service.d/looking.conf", looking)
        machine.run("systemctl", "daemon-reload")
        yield machine


def test_the_service_makes_all_cards_nodes_and_opens_no_other(machine: Machine) -> None:
    closed = machine.run(
        "systemd-run", "-qP", "-p", "DevicePolicy=closed", "cat", OTHER, may_fail=True
    )  # says "No such device or address" where this systemd has no say over devices
    machine.run("systemctl", "start", "imgdiffd")
    assert machine.run("ls", *NODES).split() == sorted(NODES)
    journal = machine.journal()
    said = {node: f"cat: {node}: No such device or address" for node in NODES}  # the kernel's, which has no such card
    assert {node: line for node, line in said.items() if line not in journal} == {}
    if "not permitted" not in closed:
        pytest.skip("the nodes are there, but in this container systemd cannot keep processes from devices")
    assert f"cat: {OTHER}: Operation not permitted" in journal
