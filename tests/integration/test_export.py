"""Exports of a real store: the same bytes in whatever order work ended, and the database left as it was."""

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from PIL import Image

from imgdiffd.cli.main import main
from imgdiffd.export.dataset import export_dataset
from imgdiffd.store import Reader, Store
from imgdiffd.store.samples import samples_of_job
from tests.fakes.answers import captions
from tests.fakes.store_driver import finish, ready, record, submit
from tests.integration.daemon_process import daemon, drop

pytestmark = pytest.mark.anyio
CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow") for obj in ("bus", "tree", "chair")]


ENDING = {".imgdiffd-export", "README.md", "croissant.json", "SHA256SUMS"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def made_in_any_order(folder: Path, seed: int) -> dict[str, bytes]:
    """The dataset of two jobs of six captions each, whose batches were drawn and recorded at random."""
    draw = random.Random(seed)
    async with Store.open(folder / "s.db", removal=True) as store:
        await submit(store, captions(6), name="first")
        await submit(store, captions(6, start=7), name="second")
        while tasks := await ready(store):
            draw.shuffle(tasks)
            batch = [task for task in tasks if task.stage is tasks[0].stage]
            await record(store, batch[: draw.randint(1, 4)])
    with Reader.open(folder / "s.db") as reader:
        for sample in reader.samples():
            for name in (sample.left_image, sample.right_image):
                Image.new("RGB", (sample.width, sample.height), (sample.item, 0, 0)).save(folder / name)
        for made in (row.sample for row in reader.removal_samples()):
            for name in (made.original, made.erased):
                Image.new("RGB", (16, 16), (made.erasure.item, 0, 0)).save(folder / name)
        export_dataset(reader, folder, folder / "out")
    return contents(folder / "out")


@pytest.mark.parametrize("seed", range(3))
async def test_the_order_of_completion_does_not_change_a_byte(tmp_path: Path, seed: int) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    plain = await made_in_any_order(tmp_path / "a", 100)
    assert len(plain) > 24
    assert await made_in_any_order(tmp_path / "b", seed) == plain


async def test_samples_of_a_job_are_read_in_order_without_a_sort(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        first, second = await submit(store, 4, name="a"), await submit(store, 4, name="b")
        await finish(store)
    asked: list[str] = []
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        connection.row_factory = sqlite3.Row
        connection.set_trace_callback(asked.append)
        rows = samples_of_job(connection, first.id, (0, 0), 3)
        rows += samples_of_job(connection, first.id, (rows[-1].item, rows[-1].region), 100)
        assert samples_of_job(connection, second.id, (0, 0), 3) == []  # the same captions: all are duplicates
        plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
    assert [(row.item, row.region) for row in rows] == [(item, region) for item in range(1, 5) for region in (0, 1)]
    assert any(
        step.startswith("SEARCH items USING INDEX items_job (job_id=? AND origin=? AND rowid>?)") for step in plan
    )
    assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN")]


DIES = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("INSERT INTO meta VALUES ('last', 'words')")
os._exit(1)  # as a daemon ends that is killed: its log stays beside the database
"""
READS = """
import os, sys
from pathlib import Path
from imgdiffd.store import Reader
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with Reader.open(Path(sys.argv[1])) as reader:
    print(len(list(reader.samples())))
"""


def ran(code: str, database: Path) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", code, database], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


async def four_samples(database: Path) -> None:
    async with Store.open(database) as store:
        await submit(store, 2)
        await finish(store)


def test_the_log_of_a_killed_daemon_is_read_and_left(tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    anyio.run(four_samples, database)
    ran(DIES, database)
    before = {name: (tmp_path / name).read_bytes() for name in ("s.db", "s.db-wal")}
    assert before["s.db-wal"]
    with Reader.open(database) as reader:
        assert len(list(reader.samples())) == 4
        assert reader._connection.execute("SELECT value FROM meta WHERE key = 'last'").fetchone()[0] == "words"
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(("dies", "mode"), [(False, 0o555), (True, 0o555), (False, 0o777)])
def test_another_user_reads_a_database_and_leaves_nothing(dies: bool, mode: int) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # which another user may be let into
        folder = Path(name)
        anyio.run(four_samples, folder / "s.db")
        if dies:
            ran(DIES, folder / "s.db")
        before = contents(folder)
        folder.chmod(mode)
        assert ran(READS, folder / "s.db") == "4\n"
        folder.chmod(0o755)
        assert contents(folder) == before


def dataset(folder: Path) -> dict[str, bytes]:
    """Its files but the two that tell which options were typed."""
    return {name: data for name, data in contents(folder).items() if name not in {"README.md", "SHA256SUMS"}}


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status and both outputs of a command line."""
    status = 0
    try:
        main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_exports_as_a_user_types_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, out = tmp_path / "state", tmp_path / "out"
    with daemon(state) as running:
        drop(state, "captions.txt", CAPTIONS)
        running.wait_done()
        drop(state, "again.txt", CAPTIONS)
        running.wait_done(2)
        (tmp_path / "more.txt").write_text("a cup beside a lamp\n")
        running.client.submit(tmp_path / "more.txt", profile="paper")
        running.wait_done(3)
        assert running.stop() == 0
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(state))
    for words, said in (
        ([], "there are samples of 2 profiles (default: "),
        (["--job", "2"], "job 2 is a duplicate of job 1, which has the samples (use --job 1)"),
        (["--job", "9"], "there is no job 9 (`imgdiffd jobs` lists them)"),
        (["--min-score", "clip=0.5", "--job", "1"], "--min-score: there is no score 'clip'"),
        (["--format", "llava", "--images", "two", "--job", "1"], "the format llava has no images two"),
        (["--validation", "0.1", "--job", "1"], "the format release has no place for a split"),
        (["--profile", "papr"], "no job has the profile 'papr' (the jobs' profiles are: default, paper)"),
    ):
        status, printed, error = typed(capsys, "export", str(out), *words)
        assert (status, printed) == (1, "")
        assert said in error
        assert error.count("\n") == 1
        assert not out.exists()
    assert typed(capsys, "export", str(state))[2].startswith(f"imgdiffd: {state} is the state folder")
    status, printed, error = typed(capsys, "export", str(out), "--job", "1")
    assert (status, error) == (0, "")
    first = dataset(out)
    assert typed(capsys, "export", str(out), "--profile", "paper")[0] == 0
    assert len(dataset(out)) < len(first)
    status, printed, error = typed(capsys, "export", str(out), "--profile", "default")
    assert "files of an older export" in printed
    assert dataset(out) == first
    chosen = ["--format", "llava", "--job", "1", "--limit", "3", "--min-score", "pair.clip_image_cosine=0.1"]
    status, printed, error = typed(capsys, "export", str(out), *chosen)
    assert (status, error) == (0, "")
    assert f"3 samples in {out}; removed " in printed
    made = [name for name in contents(out) if name.endswith(".jpg")]
    assert len(made) == 3
    assert sorted(path.name for path in out.iterdir() if path.name not in ENDING) == ["imgdiff", "llava.json"]


def test_other_devices_give_the_same_dataset(tmp_path: Path) -> None:
    made = []
    for devices in ("cpu", "cpu,cpu,cpu"):
        state = tmp_path / devices
        with daemon(state, IMGDIFFD_DEVICES=devices) as running:
            drop(state, "captions.txt", CAPTIONS)
            running.wait_done()
        with Reader.open(state / "state.db") as reader:
            export_dataset(reader, state / "pictures", state / "out")
        made.append(contents(state / "out"))
    assert made[0] == made[1]
    assert len(made[0]) > 5
