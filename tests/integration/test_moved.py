"""The state folder moved away, the socket's file removed: noticed within seconds, and repaired or said."""

import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from imgdiffd.daemon.moved import CHECK_S
from imgdiffd.errors import EXIT_CONFIGURATION
from tests.integration.daemon_process import LIMIT_S, daemon, drop
from tests.integration.faulty import rows, until
from tests.integration.test_service_manager import handed_over

CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow") for obj in ("bus", "tree", "chair")]
NOTICED_S = 10.0


def test_a_state_folder_moved_away_stops_it_and_loses_none(tmp_path: Path) -> None:
    folder, moved = tmp_path / "state", tmp_path / "moved"
    with daemon(folder, FAKE_WORKER_DELAY_S="0.05") as running:
        drop(folder, "captions.txt", CAPTIONS)
        running.wait(lambda status: any(job.stages[1].passed for job in status.jobs), "painted pairs")
        folder.rename(moved)
        began = time.monotonic()
        assert running.process.wait(LIMIT_S) == EXIT_CONFIGURATION
        assert time.monotonic() - began < NOTICED_S + CHECK_S
    assert f"{folder} was moved away or removed while the daemon worked with it" in (moved / "daemon.log").read_text()
    assert not folder.exists(), "nothing is written where it was"
    named = rows(moved, "SELECT image1 FROM pairs WHERE image1 <> '' UNION SELECT image2 FROM pairs WHERE image2 <> ''")
    assert all((moved / "pictures" / name).exists() for (name,) in named)
    assert rows(moved, "SELECT count(*) FROM items WHERE state = 'failed' OR crashes > 0") == [(0,)]
    moved.rename(folder)
    with daemon(folder) as running:
        assert [(job.state, job.failed) for job in running.wait_done().jobs] == [("done", 0)]


@pytest.mark.parametrize("what", ["state.db", "pictures"])
def test_a_database_or_images_replaced_stop_the_daemon(tmp_path: Path, what: str) -> None:
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        place = tmp_path / what
        place.rename(tmp_path / "aside")
        if what == "pictures":
            place.mkdir()
        else:
            shutil.copyfile(tmp_path / "aside", place)
        assert running.process.wait(NOTICED_S + CHECK_S) == EXIT_CONFIGURATION
        assert f"{place} was replaced" in running.log.read_text().splitlines()[-1]


def test_a_removed_socket_is_made_again(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        for _ in range(2):
            (tmp_path / "s").unlink()
            began = time.monotonic()
            running.client.close()
            running.client = type(running.client)(tmp_path / "s")
            until(running.client.alive, "an answer at the new socket")
            assert time.monotonic() - began < NOTICED_S
            assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
        assert running.stop() == 0
    assert not (tmp_path / "s").exists()
    assert "it was made again" in (tmp_path / "daemon.log").read_text()


def test_a_removed_socket_of_the_service_manager_is_made_again(tmp_path: Path) -> None:
    from imgdiffd.api.client import Client
    from imgdiffd.api.listening import bind

    with bind(tmp_path / "s") as listener, handed_over(tmp_path, listener) as process, Client(tmp_path / "s") as client:
        until(client.alive, "an answer")
        os.unlink(tmp_path / "s")
        with Client(tmp_path / "s") as fresh:
            until(fresh.alive, "an answer at the new socket")
            assert client.alive(), "connections from before go on"
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_a_socket_path_taken_by_another_is_reported_not_stolen(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        (tmp_path / "s").unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / "s"))
            other.listen()
            until(lambda: "cannot be made again" in running.log.read_text(), "the complaint")
            assert not running.client.status().ready
        (tmp_path / "s").unlink()
        running.wait(lambda status: status.ready, "the end of the complaint")
