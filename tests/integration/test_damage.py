"""A database that is damaged, emptied or gone: said in one line, not looped on, and put right by a backup."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.cli.main import main
from imgdiffd.errors import EXIT_CONFIGURATION, DaemonError, StoreError
from imgdiffd.store import Reader, Store
from imgdiffd.store.backup import SAMPLES_SKIPPED, back_up
from imgdiffd.store.restore import restore
from tests.integration.daemon_process import LIMIT_S, RunningDaemon, daemon, drop
from tests.integration.faulty import rows

CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow") for obj in ("bus", "tree", "chair")]
PAGE = 4096


def damage(database: Path) -> None:
    """Overwrite every page but the first few, which hold the schema."""
    with database.open("r+b") as file:
        file.seek(12 * PAGE)
        file.write(b"\xff" * (database.stat().st_size - 12 * PAGE))


def worked(folder: Path) -> None:
    """A daemon did a job there and was stopped."""
    with daemon(folder) as running:
        drop(folder, "captions.txt", CAPTIONS)
        running.wait_done()
        assert running.stop() == 0


def refusal(running: RunningDaemon) -> str:
    """The last line of a daemon that ends by itself with 78."""
    assert running.process.wait(LIMIT_S) == EXIT_CONFIGURATION
    return running.log.read_text().splitlines()[-1]


def test_a_damaged_database_ends_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    worked(tmp_path)
    database = tmp_path / "state.db"
    images = sorted((tmp_path / "pictures").rglob("*.png"))
    damage(database)
    before = database.read_bytes()
    with daemon(tmp_path) as running:
        line = refusal(running)
        assert line.startswith(f"{database}: the database is damaged: ")
        assert "`imgdiffd restore FILE` puts a backup in its place" in line
        assert f"`sqlite3 {database} .recover" in line
    assert database.read_bytes() == before
    assert sorted((tmp_path / "pictures").rglob("*.png")) == images
    shutil.copyfile("/dev/null", tmp_path / "state.db.broken")
    with daemon(tmp_path / "other") as running:
        running.wait(lambda status: status.ready, "readiness")
    (tmp_path / "backups").mkdir()
    back_up(tmp_path / "other" / "state.db", tmp_path / "backups" / "monday.db")
    with daemon(tmp_path) as running:
        assert f"run `imgdiffd restore {tmp_path / 'backups' / 'monday.db'}`" in refusal(running)


@pytest.mark.parametrize("state", ["is empty", "does not exist"])
def test_a_lost_database_beside_images_is_not_taken_for_new(tmp_path: Path, state: str) -> None:
    worked(tmp_path)
    database = tmp_path / "state.db"
    images = sorted((tmp_path / "pictures").rglob("*.png"))
    database.unlink()
    if state == "is empty":
        database.touch()
    with daemon(tmp_path) as running:
        line = refusal(running)
        assert line.startswith(f"{database} {state}, but {tmp_path / 'pictures'} holds the images of a database")
        assert f"to begin with nothing, move {tmp_path / 'pictures'} away" in line
    assert sorted((tmp_path / "pictures").rglob("*.png")) == images
    (tmp_path / "pictures").rename(tmp_path / "away")
    log = tmp_path / "state.db-wal"
    log.write_bytes(b"7" * 5000)
    with daemon(tmp_path) as running:
        assert refusal(running).startswith(f"{database} {state}, but {log} holds the last changes of a database")
    assert log.stat().st_size == 5000
    log.unlink()
    with daemon(tmp_path) as running:
        assert running.wait(lambda status: status.ready, "readiness").jobs == ()


def test_damage_met_while_running_ends_it_with_the_same_line(tmp_path: Path) -> None:
    worked(tmp_path)
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        damage(tmp_path / "state.db")
        with pytest.raises(DaemonError, match=r"damaged|broke off"):
            [running.client.explain(item) for item in range(1, 10)]
        line = refusal(running)
        assert line.startswith(f"{tmp_path / 'state.db'}: the database is damaged: ")
        assert not (tmp_path / "s").exists(), "it stopped in order"


def test_backed_up_killed_damaged_and_restored_it_goes_on(tmp_path: Path) -> None:
    folder, kept = tmp_path / "state", tmp_path / "kept.db"
    command = [sys.executable, "-m", "imgdiffd"]
    environ = {"IMGDIFFD_CONFIG": "/dev/null", "IMGDIFFD_STATE_FOLDER": str(folder)}
    with daemon(folder, FAKE_WORKER_DELAY_S="0.05") as running:
        drop(folder, "first.txt", CAPTIONS)
        running.wait(lambda status: any(job.sampled for job in status.jobs), "the first sample")
        taken = subprocess.run([*command, "backup", str(kept)], env=environ, check=True, capture_output=True, text=True)
        assert "the images in" in taken.stdout
        drop(folder, "second.txt", [f"{caption} at night" for caption in CAPTIONS])
        running.wait_done(jobs=2)
        running.kill()
    damage(folder / "state.db")
    subprocess.run([*command, "restore", str(kept)], env=environ, check=True, capture_output=True)
    assert list(folder.glob("state.db.replaced-*"))
    with daemon(folder) as running:
        drop(folder, "second.txt", [f"{caption} at night" for caption in CAPTIONS])
        jobs = running.wait_done(jobs=2).jobs
        assert [(job.state, job.failed, job.captions) for job in jobs] == [("done", 0, len(CAPTIONS))] * 2
        assert running.stop() == 0
    named = rows(folder, "SELECT left_image, right_image FROM samples")
    assert named
    assert all((folder / "pictures" / name).exists() for row in named for name in row)
    assert rows(folder, "PRAGMA integrity_check") == [("ok",)]
    assert rows(folder, "SELECT max(id) FROM samples")[0][0] > SAMPLES_SKIPPED, "no number is given twice"


def test_a_backup_replaces_nothing_and_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such database"):
        back_up(tmp_path / "state.db", tmp_path / "kept.db")
    worked(tmp_path)
    back_up(tmp_path / "state.db", tmp_path / "kept.db")
    with pytest.raises(StoreError, match=r"kept\.db exists already"):
        back_up(tmp_path / "state.db", tmp_path / "kept.db")
    with pytest.raises(StoreError, match=r"cannot be backed up to .*no/such/folder"):
        back_up(tmp_path / "state.db", tmp_path / "no/such/folder/kept.db")
    assert list(tmp_path.glob("*.part")) == []


def test_a_backup_leaves_nothing_beside_and_is_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    worked(state)
    before = {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()}
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(state))
    main(["backup", str(tmp_path / "kept.db")])
    with Reader.open(state / "state.db") as reader:
        assert reader.job(1) is not None
    assert {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()} == before
    capsys.readouterr()
    for folder, what in (("pictures", "the daemon's images"), ("inbox", "the watch folder")):
        (state / folder).mkdir(exist_ok=True)
        with pytest.raises(SystemExit):
            main(["backup", str(state / folder / "kept.db")])
        assert f"lies in {what} (name a file elsewhere" in capsys.readouterr().err
        assert not (state / folder / "kept.db").exists()
    main(["backup", str(state / "kept.db")])


@pytest.mark.anyio
async def test_restores_within_a_second_keep_every_database(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    async with Store.open(database):
        pass
    back_up(database, tmp_path / "backup.db")
    kept = {restore(tmp_path / "backup.db", database) for _ in range(3)}
    assert len(kept) == 3
    assert all(place and place.exists() for place in kept)


def test_a_restore_takes_no_damaged_file_and_no_database_in_use(tmp_path: Path) -> None:
    worked(tmp_path)
    database, kept = tmp_path / "state.db", tmp_path / "kept.db"
    back_up(database, kept)
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        with pytest.raises(StoreError, match="in use by"):
            restore(kept, database)
        assert running.stop() == 0
    before = database.read_bytes()
    damage(kept)
    with pytest.raises(StoreError, match=r"kept\.db: this backup is damaged \(name another backup"):
        restore(kept, database)
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as foreign:
        foreign.execute("CREATE TABLE t (n)")
    (tmp_path / "text").write_text("root:x:0:0\n")
    (tmp_path / "backups").mkdir()
    back_up(database, tmp_path / "backups" / "monday.db")
    newest = rf"name a file that `imgdiffd backup` wrote; the newest here is {tmp_path}"
    for file, why in (
        ("foreign.db", "is not a backup"), ("text", "is not a backup"), ("", "is a folder"), ("none", "no such file"),
        ("state.db", "is the database itself"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=rf"{file}: {why}.* \({newest}") as caught:
            restore(tmp_path / file, database)
        assert caught.value.exit_status == 1
    assert database.read_bytes() == before


def test_waiting_pairs_that_lost_their_images_are_painted_again(tmp_path: Path) -> None:
    with daemon(tmp_path, FAKE_WORKER_DELAY_S="0.05") as running:
        drop(tmp_path, "captions.txt", CAPTIONS)
        running.wait(lambda status: any(job.stages[-1].waiting for job in status.jobs), "the last stage")
        running.kill()
    (job,) = rows(tmp_path, "SELECT count(*), sum(stage IN ('rewrite', 'generate')) FROM items WHERE state = 'ready'")
    assert job[0] > (job[1] or 0)
    for image in (tmp_path / "pictures").rglob("*.png"):
        image.unlink()
    with daemon(tmp_path) as running:
        assert [(job.state, job.failed) for job in running.wait_done().jobs] == [("done", 0)]
        assert running.stop() == 0
    assert "have lost their images and are painted again" in (tmp_path / "daemon.log").read_text()
    assert rows(tmp_path, "PRAGMA foreign_key_check") == []
