"""The installed service under a real systemd, as an operator and the members of its group meet it.

`make test-systemd` builds the machine that these tests boot; without it they are skipped.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.job import TERMINAL_ITEM_STATES, ItemState
from imgdiffd.status import Status
from imgdiffd.store import Reader
from tests.systemd.machine import FOLDER, Machine, booted

pytestmark = pytest.mark.skipif(not FOLDER, reason="`make test-systemd` builds the machine and runs this")

CAPTIONS = (Path(__file__).parents[2] / "imgdiffd" / "captions" / "demo_captions.txt").read_text().splitlines()
CAPTIONS = [line for line in CAPTIONS if line.strip()][:24]
WATCHDOG_S = 3


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with booted(Path(FOLDER), tmp_path / "console.log") as machine:
        yield machine


def item_states(state_folder: Path) -> dict[str, int]:
    """How many items are in which state, read from a stopped daemon's database."""
    with closing(sqlite3.connect(state_folder / "state.db")) as connection:
        return dict(connection.execute("SELECT state, count(*) FROM items WHERE origin IS NULL GROUP BY state"))


def test_a_killed_service_comes_back_and_doubles_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.run("systemctl", "start", "imgdiffd")
    machine.until(lambda: machine.status().ready, "a ready device")
    machine.drop("captions.txt", CAPTIONS)

    def some_are_done() -> bool:
        jobs = machine.status().jobs
        return bool(jobs) and 0 < jobs[0].sampled + jobs[0].rejected < len(CAPTIONS)

    machine.until(some_are_done, "a first sample")
    machine.until(lambda: f"of {len(CAPTIONS)}" in machine.show("StatusText"), "progress in systemctl status")
    killed = machine.show("MainPID")
    machine.kill("KILL", killed)
    machine.until(lambda: machine.show("NRestarts") == "1" and machine.show("ActiveState") == "active", "the restart")
    assert machine.show("MainPID") not in {killed, "0"}
    machine.until(lambda: [job.state for job in machine.status().jobs] == ["done"], "the end of the job")
    machine.run("systemctl", "stop", "imgdiffd")

    assert machine.show("Result") == "success"
    assert machine.show("ExecMainStatus") == "0"
    journal = machine.journal()
    for line in ("status=9/KILL", "Scheduled restart job", "'captions.txt' is job 1", "SIGTERM: stopping", "stopped"):
        assert line in journal
    assert "Traceback" not in journal
    assert "starting another" not in journal, "a worker that ends in an ordered stop is not replaced"
    assert "INFO" not in journal, "levels are the journal's own"
    assert "is job 1" not in machine.run("journalctl", "-o", "cat", "-p", "warning", "-u", "imgdiffd")
    assert machine.run("ls", "/var/lib/imgdiffd/inbox/done") == "captions.txt"
    state_folder = machine.fetch("/var/lib/imgdiffd", tmp_path / "state")
    with Reader.open(state_folder / "state.db") as reader:
        samples = list(reader.samples())
    states = item_states(state_folder)
    assert sum(states.values()) == len(CAPTIONS)
    assert set(states) <= {state.value for state in TERMINAL_ITEM_STATES - {ItemState.FAILED}}
    assert samples
    assert max(Counter((sample.item, sample.region) for sample in samples).values()) == 1
    named = {name for sample in samples for name in (sample.left_image, sample.right_image)}
    images = state_folder / "pictures"
    assert all((images / name).is_file() for name in named)
    assert not list(images.rglob(".tmp-*"))


def test_only_the_group_may_use_the_socket_and_the_inbox(machine: Machine) -> None:
    machine.run("systemctl", "start", "imgdiffd")
    assert machine.run("stat", "-c", "%a %U %G", "/var/lib/imgdiffd/imgdiffd.sock") == "660 imgdiffd imgdiffd"
    assert machine.run("stat", "-c", "%a %U %G", "/var/lib/imgdiffd/inbox") == "2770 imgdiffd imgdiffd"
    assert machine.status(user="alice").devices
    assert "user bob is not in group imgdiffd" in machine.run("imgdiffd", "status", user="bob", may_fail=True)
    assert machine.run("imgdiffd", "export", "/home/alice/out", user="alice") == "0 samples in /home/alice/out"
    refused = machine.run("cp", "/etc/hostname", "/var/lib/imgdiffd/inbox/a.txt", user="bob", may_fail=True)
    assert "Permission denied" in refused
    machine.drop("empty.txt", [])
    machine.until(
        lambda: machine.run("ls", "/var/lib/imgdiffd/inbox/failed") == "empty.txt\nempty.txt.reason.txt", "a refusal"
    )
    assert "empty" in machine.run("cat", "/var/lib/imgdiffd/inbox/failed/empty.txt.reason.txt", user="alice")


def test_a_stop_lasts_until_somebody_starts_it_again(machine: Machine) -> None:
    machine.run("systemctl", "start", "imgdiffd")
    assert machine.status().devices
    machine.run("systemctl", "stop", "imgdiffd")
    assert "no daemon answers" in machine.run("imgdiffd", "status", user="alice", may_fail=True)
    assert machine.show("ActiveState") == machine.show("ActiveState", "imgdiffd.socket") == "inactive"
    machine.run("systemctl", "start", "imgdiffd.socket")
    assert machine.show("ActiveState") == "inactive"
    assert machine.status().devices, "the first request starts the daemon where only the socket is enabled"


def test_the_watchdog_restarts_a_hung_loop_and_logs_where(machine: Machine) -> None:
    machine.write(
        "/etc/systemd/system/imgdiffd.service.d/watchdog.conf", f"[Service]\nWatchdogSec={WATCHDOG_S}\nRestartSec=0\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "imgdiffd")
    running = machine.show("MainPID")
    machine.run("sleep", str(2 * WATCHDOG_S))
    assert machine.show("MainPID") == running, "an idle daemon feeds its watchdog"
    machine.kill("STOP", running)
    machine.until(lambda: machine.show("NRestarts") == "1", "the watchdog")
    machine.until(lambda: machine.show("ActiveState") == "active", "the restart")
    assert "Watchdog timeout" in machine.journal()


def test_wrong_settings_end_in_78_and_are_not_tried_again(machine: Machine) -> None:
    machine.write("/etc/imgdiffd/imgdiffd.toml", '\nstate_foldr = "/tmp"\n')
    machine.run("systemctl", "start", "imgdiffd", may_fail=True)
    machine.until(lambda: machine.show("ActiveState") == "failed", "the refusal")
    assert machine.show("ExecMainStatus") == "78"
    assert machine.show("NRestarts") == "0"
    assert "imgdiffd.toml, line 2: state_foldr: no such setting" in machine.journal()


def test_a_reload_applies_good_settings_and_ignores_wrong_ones(machine: Machine) -> None:
    machine.run("systemctl", "start", "imgdiffd")
    machine.until(lambda: machine.status().ready, "a ready device")
    daemon = machine.show("MainPID")
    machine.write("/etc/imgdiffd/imgdiffd.toml", '\ndrain_s = "soon"\n')
    machine.run("systemctl", "reload", "imgdiffd")
    wrong = "/etc/imgdiffd/imgdiffd.toml, line 2: drain_s: "
    kept = f"the old ones stay in force: {wrong}"
    machine.until(lambda: kept in machine.journal(), "the complaint")
    told = machine.run("imgdiffd", "--config", "/dev/null", "status", "--json", user="alice")
    status = Status.model_validate_json(told)
    assert status.ready
    assert kept in status.problems[0]
    machine.write("/etc/imgdiffd/imgdiffd.toml", "drain_s = 7\n")
    machine.run("systemctl", "reload", "imgdiffd")
    machine.until(lambda: "drain_s = 7.0" in machine.journal(), "the new settings")
    assert machine.show("MainPID") == daemon


def test_stopping_outwaits_the_watchdog_for_running_batches(machine: Machine, tmp_path: Path) -> None:
    machine.write(
        "/etc/systemd/system/imgdiffd.service.d/watchdog.conf", "[Service]\nWatchdogSec=2\nTimeoutStopSec=3\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "imgdiffd")
    machine.until(lambda: machine.status().ready, "a ready device")
    machine.drop("captions.txt", CAPTIONS)
    machine.until(lambda: any(device.running for device in machine.status().devices), "a running batch")
    workers = [str(device.pid) for device in machine.status().devices]
    machine.kill("STOP", *workers)  # their batches take long now
    machine.run("systemctl", "stop", "--no-block", "imgdiffd")
    machine.run("sleep", "6")
    assert machine.show("ActiveState") == "deactivating"
    machine.kill("CONT", *workers)
    machine.until(lambda: machine.show("ActiveState") == "inactive", "the end")
    assert machine.show("Result") == "success"
    assert "no sign of life" not in machine.journal()
    assert "failed" not in item_states(machine.fetch("/var/lib/imgdiffd", tmp_path / "state"))


def test_the_running_daemon_is_confined(machine: Machine) -> None:
    machine.run("systemctl", "start", "imgdiffd")
    daemon = machine.show("MainPID")
    status = dict(line.split(":\t", 1) for line in machine.run("cat", f"/proc/{daemon}/status").splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    owner = machine.run("id", "-u", "imgdiffd"), machine.run("id", "-g", "imgdiffd")
    inside = ["nsenter", "-t", daemon, "-m", "-S", owner[0], "-G", owner[1], "sh", "-c"]
    for kind in ("net", "mnt", "user", "ipc"):
        own, systems = (machine.run("readlink", f"/proc/{process}/ns/{kind}") for process in (daemon, "1"))
        assert own != systems, f"a {kind} namespace of its own"
    assert "Permission denied" in machine.run(*inside, "ls /home", may_fail=True)
    for folder in ("/etc", "/usr/local/lib/imgdiffd", "/var/lib"):
        assert "Read-only file system" in machine.run(*inside, f"touch {folder}/x", may_fail=True)
    machine.run(*inside, "touch /var/lib/imgdiffd/x /var/cache/imgdiffd/x /tmp/x")


def test_the_installed_units_are_sound_and_confined(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "imgdiffd.service", "imgdiffd.socket") == ""
    machine.run("systemctl", "start", "imgdiffd")
    told = machine.run("systemd-analyze", "security", "--no-pager", "imgdiffd.service")
    exposure = re.search(r"Overall exposure level for imgdiffd\.service: ([\d.]+)", told)
    assert exposure
    assert float(exposure[1]) <= 1.0
