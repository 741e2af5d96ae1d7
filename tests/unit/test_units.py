"""The unit files: what they promise agrees with the code, systemd finds nothing wrong, and install puts them there."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from imgdiffd.api import listening
from imgdiffd.daemon.serve import CLOSE_S, SCHEDULER_POLL_S, WORKER_GRACE_S
from imgdiffd.errors import EXIT_CONFIGURATION
from imgdiffd.fleet.wire import Start
from imgdiffd.settings import SYSTEM_FILE, Settings

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SETTINGS = Settings()
EXPOSURE = 1.0

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def unit(name: str) -> dict[str, list[str]]:
    """Every assignment of a unit file, in order."""
    values: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, separator, value = line.partition("=")
            assert separator, f"{name}: {line}"
            values.setdefault(key, []).append(value)
    return values


def make(*arguments: str) -> None:
    subprocess.run(["make", "-s", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *arguments], check=False, capture_output=True, text=True)


def test_a_wrong_configuration_is_not_restarted() -> None:
    assert unit("imgdiffd.service")["RestartPreventExitStatus"] == [str(EXIT_CONFIGURATION)]


def test_stopping_has_the_time_that_the_ordered_stop_takes() -> None:
    (stop_s,) = unit("imgdiffd.service")["TimeoutStopSec"]
    assert int(stop_s) > SETTINGS.drain_s + WORKER_GRACE_S + CLOSE_S


def test_an_idle_scheduler_turns_well_within_the_watchdogs_time() -> None:
    (watchdog_s,) = unit("imgdiffd.service")["WatchdogSec"]
    assert SCHEDULER_POLL_S * 2 < int(watchdog_s) <= 60


def test_the_socket_is_where_clients_look_and_for_the_group_only() -> None:
    socket = unit("imgdiffd.socket")
    assert socket["ListenStream"] == [str(SETTINGS.socket_path)]
    assert socket["FileDescriptorName"] == [listening.SOCKET_NAME]
    assert int(socket["SocketMode"][0], 8) == listening.SOCKET_MODE
    assert socket["SocketGroup"] == unit("imgdiffd.service")["Group"] == ["imgdiffd"]


def test_gpus_can_be_reached_and_nothing_forbids_what_torch_does() -> None:
    service = unit("imgdiffd.service")
    allowed = dict(entry.split() for entry in service["DeviceAllow"])
    names = ("nvidia", "nvidiactl", "nvidia-frontend", "nvidia-uvm", "nvidia-caps")  # from /proc/devices
    assert all(any(fnmatch(f"char-{name}", pattern) for pattern in allowed) for name in names)
    assert set(allowed.values()) == {"rwm"}, "the nodes are made under this list too"
    assert not {"MemoryDenyWriteExecute", "PrivateDevices", "DynamicUser", "ProcSubset"} & set(service)


def test_the_kernel_knows_every_device_before_the_list_is_made() -> None:
    service = unit("imgdiffd.service")
    for key in ("Wants", "After"):
        assert "modprobe@nvidia_uvm.service" in " ".join(service[key]).split()
    assert service["ExecStartPre"] == ["-+/usr/local/lib/imgdiffd/device-nodes"]


def test_the_unit_sets_nothing_that_workers_overwrite() -> None:
    start = Start("mini", "cuda:0", (), "/pictures", 1, True, compile_cache="/kernels")
    program = "import os, sys\nfrom imgdiffd.worker.__main__ import open_stages\n" + (
        "sys.modules['imgdiffd.worker.engine'] = type(sys)('engine')\n"
        "sys.modules['imgdiffd.worker.engine'].StageEngine = lambda *_: None\n"
        f"from imgdiffd.fleet.wire import Start\nopen_stages({start!r}, lambda _: None)\nprint(*os.environ)"
    )
    ours = {entry.partition("=")[0] for line in unit("imgdiffd.service")["Environment"] for entry in line.split()}
    told = subprocess.run([sys.executable, "-c", program], env={}, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "TRITON_CACHE_DIR" in told.stdout.split()
    assert not ours & set(told.stdout.split())


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """A root folder with the files of a driver that has cards of the minors 0, 1 and 3, the last one divided."""
    cards = tmp_path / "proc/driver/nvidia"
    for place, minor in (("0000:01:00.0", 0), ("0000:41:00.0", 1), ("0000:c1:00.0", 3)):
        (cards / "gpus" / place).mkdir(parents=True)
        (cards / "gpus" / place / "information").write_text(f"Model: \t A100\nDevice Minor: \t {minor}\n")
    for part in ("mig/config", "gpu3/mig/gi1/access", "gpu3/mig/gi1/ci0/access"):
        (cards / "capabilities" / part).parent.mkdir(parents=True, exist_ok=True)
        (cards / "capabilities" / part).touch()
    return tmp_path


def nodes_asked_for(root: Path) -> list[str]:
    """The arguments of each `nvidia-modprobe` that the installed script calls."""
    (root / "bin").mkdir(exist_ok=True)
    (root / "bin/nvidia-modprobe").write_text(f'#!/bin/sh\necho "$*" >> {root}/asked\nexit 1\n')
    (root / "bin/nvidia-modprobe").chmod(0o755)
    environment = {"ROOT": str(root), "PATH": f"{root}/bin:{os.environ['PATH']}"}
    subprocess.run([UNITS / "device-nodes"], env=environment, check=False)
    return (root / "asked").read_text().splitlines()


def test_the_nodes_of_every_card_and_instance_are_made(driver: Path) -> None:
    of_instance = f"{driver}/proc/driver/nvidia/capabilities/gpu3/mig/gi1"
    assert nodes_asked_for(driver) == [
        "-c 255 -c 0 -c 1 -c 3",
        "-u -c 0",
        f"-f {of_instance}/access -f {of_instance}/ci0/access",
    ]


def test_without_a_driver_the_nodes_are_left_alone(tmp_path: Path) -> None:
    assert nodes_asked_for(tmp_path) == ["-c 255", "-u -c 0"]
    (tmp_path / "bin/nvidia-modprobe").unlink()
    done = subprocess.run(
        [UNITS / "device-nodes"], env={"PATH": f"{tmp_path}/bin"}, check=True, capture_output=True, text=True
    )
    assert done.stdout == "no nvidia-modprobe: the device nodes are left as they are\n"
    assert done.stderr == ""


def test_the_inbox_is_setgid_and_closed_to_others() -> None:
    entries = [line.split() for line in (UNITS / "tmpfiles.d" / "imgdiffd.conf").read_text().splitlines()]
    modes = {entry[1]: entry[2:5] for entry in entries if entry[0] == "d"}
    assert modes[str(SETTINGS.inbox_folder)] == ["2770", "imgdiffd", "imgdiffd"]
    assert modes[str(SETTINGS.state_folder)] == ["0750", "imgdiffd", "imgdiffd"]


def test_the_example_settings_are_inert_and_all_valid() -> None:
    text = (UNITS / "imgdiffd.toml").read_text()
    assert tomllib.loads(text) == {}
    shown = tomllib.loads("\n".join(line[2:] for line in text.splitlines() if re.match(r"# \w+ = ", line)))
    settings = Settings.model_validate(shown)
    assert settings.inbox_folder == SETTINGS.inbox_folder
    assert set(shown) >= {"bundle", "devices", "drain_s", "min_free_gb"}


@needs_analyze
def test_the_exposure_is_at_most_one() -> None:
    found = analyze("security", "--offline=yes", "--no-pager", str(UNITS / "imgdiffd.service"))
    exposure = re.search(r"Overall exposure level for imgdiffd\.service: ([\d.]+)", found.stdout)
    if exposure is None:
        pytest.skip(f"this systemd-analyze cannot look at files: {found.stderr.strip()}")
    assert float(exposure[1]) <= EXPOSURE


@needs_make
@needs_analyze
def test_installed_units_are_sound_under_any_prefix(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    make("install-units", "DESTDIR=", f"PREFIX={prefix}", f"SETTINGS={tmp_path}/settings.toml")
    command = prefix / "lib" / "imgdiffd" / "bin" / "imgdiffd"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    units = prefix / "lib" / "systemd" / "system"
    found = analyze("verify", "--man=no", str(units / "imgdiffd.service"), str(units / "imgdiffd.socket"))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    assert "/usr/local" not in (units / "imgdiffd.service").read_text().partition("\n")[2]


@needs_make
def test_everybody_can_read_what_a_careful_root_installs(tmp_path: Path) -> None:
    old_mask = os.umask(0o077)
    try:
        make("install-units", f"DESTDIR={tmp_path / 'root'}")
    finally:
        os.umask(old_mask)
    modes = {path: path.stat().st_mode for path in (tmp_path / "root").rglob("*")}
    assert len(modes) > 6
    assert [path for path, mode in modes.items() if mode & 0o044 != 0o044] == []


@needs_make
def test_uninstalling_removes_all_but_a_persons_settings(tmp_path: Path) -> None:
    make("install-units", f"DESTDIR={tmp_path}")
    settings = tmp_path / SYSTEM_FILE.relative_to("/")
    assert settings.read_text() == (UNITS / "imgdiffd.toml").read_text()
    installed = tmp_path / "usr" / "local" / "share" / "doc" / "imgdiffd"
    pages = {
        path.relative_to(ROOT) for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.*")) if path.suffix != ".1"
    }
    assert pages <= {path.relative_to(installed) for path in installed.rglob("*")}
    settings.write_text('bundle = "small"\n')
    make("install-units", f"DESTDIR={tmp_path}")
    assert settings.read_text() == 'bundle = "small"\n'
    make("uninstall", f"DESTDIR={tmp_path}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [settings]
