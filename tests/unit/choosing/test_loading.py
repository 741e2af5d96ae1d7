"""Columns kept in files: only what changed is read again, and no file is ever believed."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from imgdiffd.choosing.columns import PARTS, Columns
from imgdiffd.choosing.loading import Loader
from imgdiffd.pipeline import Stage
from imgdiffd.store import Reader, Store
from tests.fakes.answers import captions
from tests.fakes.store_driver import advance_to, finish, ready, record, submit

pytestmark = pytest.mark.anyio


def loaded(state: Path, *, kept: bool = True) -> tuple[Columns, Loader]:
    with Reader.open(state / "state.db") as reader:
        loader = Loader(reader, state if kept else None)
        return loader.load(), loader


def said(columns: Columns) -> dict[str, object]:
    """All that columns say, in whatever order their reasons are numbered."""
    tables = {"items": columns.items, **{part: getattr(columns, part) for part in PARTS}}
    names = np.array(columns.reasons)
    return {
        f"{name}/{key}": (names[column] if key == "reason" else column).tolist()
        for name, table in tables.items()
        for key, column in sorted(table.items())
    }


def assert_fresh(state: Path) -> Loader:
    """What files and database say together is what the database says alone; returns who loaded it."""
    found, loader = loaded(state)
    assert repr(said(found)) == repr(said(loaded(state, kept=False)[0]))
    return loader


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """Five captions on their ways, in columns that are kept."""
    async with Store.open(tmp_path / "state.db") as store:
        await submit(store, 5)
        await advance_to(store, Stage.DESCRIBE)
        tasks = await ready(store)
        await record(store, tasks[:2])
    assert assert_fresh(tmp_path).read == 5
    return tmp_path


async def test_only_captions_that_changed_are_read_again(state: Path) -> None:
    assert assert_fresh(state).read == 0
    async with Store.open(state / "state.db") as store:
        tasks = [task for task in await ready(store) if task.stage is Stage.DESCRIBE]
        await record(store, tasks[:1], passes=False)
        await submit(store, captions(2, start=50), name="more")
    assert assert_fresh(state).read == 3
    assert assert_fresh(state).read == 0


async def test_deleted_captions_are_gone_and_retried_ones_read(state: Path) -> None:
    async with Store.open(state / "state.db") as store:
        more = await submit(store, captions(1, start=60), name="more")
        await store.quarantine(1, "broke_contrast", "three times")
        await finish(store)
        await store.retry(1)
    assert assert_fresh(state).read == 6
    async with Store.open(state / "state.db") as store:
        await store.mark_deleted(more.id)
        while await store.delete_some(more.id):
            pass
    assert assert_fresh(state).read == 0
    assert len(loaded(state)[0]) == 5


async def test_an_older_database_put_back_is_read_as_it_is(state: Path) -> None:
    shutil.copy(state / "state.db", state / "backup")
    async with Store.open(state / "state.db") as store:
        await submit(store, captions(1, start=70), name="lost")
        await finish(store)
    assert assert_fresh(state).read == 6
    shutil.copy(state / "backup", state / "state.db")
    assert assert_fresh(state).read == 5
    async with Store.open(state / "state.db") as store:
        await submit(store, captions(1, start=80), name="another, with the number of the lost one")
    assert assert_fresh(state).read == 1


def _changed(file: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    change(arrays)
    np.savez(file, **arrays)


def _as_one_array(file: Path) -> None:
    np.save(file.with_suffix(".npy"), np.zeros(3))
    file.with_suffix(".npy").rename(file)


def _as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


SPOILS: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut off": lambda file: os.truncate(file, file.stat().st_size // 2),
    "garbage": lambda file: file.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 40),
    "a byte turned": lambda file: file.write_bytes(file.read_bytes().replace(b"cosine", b"cosinE", 1)),
    "a single array": _as_one_array,
    "a folder": _as_folder,
    "another database's": lambda file: _changed(file, lambda arrays: arrays.update(header=np.array("[1]"))),
    "too short": lambda file: _changed(file, lambda arrays: arrays.update({"boxes/image": np.zeros(1, np.int8)})),
    "of another type": lambda file: _changed(file, lambda arrays: arrays.update({"items/item": np.zeros(5)})),
    "without a column": lambda file: _changed(file, lambda arrays: arrays.pop("regions/left")),
    "with wrong counts": lambda file: _changed(file, lambda arrays: arrays["items/n_boxes"].__iadd__(1)),
    "with wrong reasons": lambda file: _changed(file, lambda arrays: arrays["items/reason"].__iadd__(99)),
    "pickled": lambda file: np.savez(file, header=np.array([print], dtype=object)),
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS, ids=str)
async def test_a_file_that_is_spoilt_is_written_anew(state: Path, spoil: str) -> None:
    file = state / "columns" / "000000.npz"
    SPOILS[spoil](file)
    found = assert_fresh(state)
    assert found.read == 5
    if not file.is_dir():
        assert assert_fresh(state).read == 0


async def test_a_process_killed_while_writing_leaves_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale, fresh, other = (state / "columns" / name for name in (".tmp-1-a.npz", ".tmp-2-a.npz", "000009.npz"))
    for path in (stale, fresh, other):
        path.write_bytes(b"half a fi")
    os.utime(stale, (1, 1))
    assert_fresh(state)
    assert [path.name for path in sorted((state / "columns").iterdir())] == [".tmp-2-a.npz", "000000.npz"]


async def test_without_leave_to_write_all_is_read_and_said(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(state / "columns")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "columns")

    monkeypatch.setattr("imgdiffd.durable.write", refused)
    found = assert_fresh(state)
    assert (found.read, found.not_kept) == (5, "columns: Permission denied")


async def test_another_user_reads_files_but_writes_none(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: state.stat().st_uid + 1)
    assert assert_fresh(state).read == 0
    shutil.rmtree(state / "columns")
    assert assert_fresh(state).read == 5
    assert not (state / "columns").exists()


async def test_captions_in_several_files_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgdiffd.choosing.loading.CAPTIONS", 3)
    async with Store.open(tmp_path / "state.db", removal=True) as store:
        await submit(store, 7)
        await advance_to(store, Stage.CONTRAST)  # numbers of derived items stand between those of captions
        await submit(store, captions(3, start=90), name="more")
    assert assert_fresh(tmp_path).read == 10
    async with Store.open(tmp_path / "state.db", removal=True) as store:
        await finish(store)
    assert assert_fresh(tmp_path).read == 10
    columns, loader = loaded(tmp_path)
    assert loader.read == 0
    assert (np.diff(columns.items["item"]) > 0).all()
    assert columns.regions["sampled"].all()
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        assert len(columns.regions["sampled"]) == connection.execute("SELECT count(*) FROM samples").fetchone()[0]


async def test_an_empty_database_has_empty_columns(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "state.db"):
        pass
    assert len(loaded(tmp_path)[0]) == 0
