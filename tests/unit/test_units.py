"""The unit files: what they promise agrees with the code, systemd finds nothing wrong, and install puts them there."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from imgdiffd.api import listening
from imgdiffd.daemon.serve import CLOSE_S, SCHEDULER_POLL_S, WORKER_GRACE_S
from imgdiffd.errors import EXIT_CONFIGURATION
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
    allowed = {entry.split()[0] for entry in service["DeviceAllow"]}
    assert {"char-nvidia", "char-nvidiactl", "char-nvidia-frontend", "char-nvidia-uvm", "char-nvidia-caps"} <= allowed
    assert not {"MemoryDenyWriteExecute", "PrivateDevices", "DynamicUser", "ProcSubset"} & set(service)


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
