"""Settings that change under a running daemon: SIGHUP puts good ones in force, and bad ones change nothing."""

import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.daemon.reload import RELOADABLE, LiveSettings
from imgdiffd.errors import SettingsError
from imgdiffd.settings import Settings
from tests.integration.daemon_process import daemon
from tests.integration.faulty import answer, until

QUIET = "import logging\nlogging.basicConfig(level='WARNING')\n"


@pytest.fixture
def level() -> Iterator[None]:
    """The log is as loud afterwards as before."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def test_a_reload_of_wrong_settings_keeps_the_old_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "imgdiffd.toml"
    file.write_text('drain_s = 5\nlog_level = "warning"\nin_flight = 2\n')
    with daemon(tmp_path, before=QUIET, IMGDIFFD_CONFIG=str(file)) as running:
        running.wait(lambda status: status.ready, "readiness")
        file.write_text("\ndrain_s = -7\n")
        running.process.send_signal(signal.SIGHUP)
        wrong = f"settings: the old ones stay in force: {file}, line 2: drain_s: must be at least"
        status = running.wait(lambda status: bool(status.problems), "the complaint")
        assert status.problems[0].startswith(wrong)
        assert wrong in running.log.read_text()
        assert status.ready
        assert answer(tmp_path, "/ready").status_code == 200
        file.write_text('drain_s = 7\nlog_level = "info"\nin_flight = 1\n')
        running.process.send_signal(signal.SIGHUP)
        restart = ("settings: restart to apply in_flight",)
        running.wait(lambda status: status.problems == restart, "the new settings")
        file.write_text('drain_s = 7\nlog_level = "info"\nin_flight = 2\n')
        running.process.send_signal(signal.SIGHUP)
        running.wait(lambda status: not status.problems, "what the daemon started with")
        assert running.stop() == 0
        until(lambda: "SIGTERM: stopping; running batches have 7 s" in running.log.read_text(), "the new patience")


@pytest.mark.usefixtures("level")
def test_a_reload_changes_only_what_may_change_while_running() -> None:
    told: list[Settings] = []
    before = Settings()
    live = LiveSettings(before, (told.append,))
    changed = {"poll_s": 3.0, "settle_s": 4.0, "drain_s": 5.0, "min_free_gb": 6.0, "log_level": "debug"}
    changed |= {"keep_pictures": "all", "keep_jobs_days": 7.0, "keep_done_gb": 8.0}
    assert set(changed) == set(RELOADABLE)
    live.apply(lambda: before.model_copy(update={**changed, "bundle": "paper", "devices": ("cpu",)}))
    assert told == [live.settings] == [before.model_copy(update=changed)]
    assert live.problems == ("settings: restart to apply bundle, devices",)
    assert logging.getLogger().level == logging.DEBUG

    def refuse() -> Settings:
        raise SettingsError("no such key", hint="look")

    live.apply(refuse)
    assert told == [live.settings]
    assert "no such key" in live.problems[0]


def test_a_new_disk_threshold_holds_from_the_next_check(tmp_path: Path) -> None:
    guard = DiskGuard(tmp_path, 0)
    guard.check()
    assert not guard.problem
    disk = shutil.disk_usage(tmp_path)
    guard.use(Settings(min_free_gb=(disk.free + disk.total) / 2 / (1 << 30)))
    guard.check()
    assert "below min_free_gb = " in guard.problem
