"""The laws of `imgdiffd.durable`: whole or not at all, durable on return, no litter."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from imgdiffd import durable

# Kills itself before the n-th line that `durable` runs, for every n, and prints what each death left.
_DYING = """
import os, sys
from pathlib import Path
from imgdiffd import durable

def die_at(number):
    left = number
    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename != durable.__file__:
            return None
        if event == "line":
            if not left:
                os._exit(9)
            left -= 1
        return trace
    sys.settrace(trace)

folder = Path(sys.argv[1])
targets = [folder / "a" / "one.txt", folder / "a" / "two.txt", folder / "b" / "three.txt"]
number, status = 0, 9
while status:
    for target in targets:
        target.parent.mkdir(exist_ok=True)
        target.write_text("old " * 20_000)
    if not (child := os.fork()):
        die_at(number)
        durable.write({target: "new " * 20_000 for target in targets})
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = [target.read_text() for target in targets]
    whole = ("whole" if text == text[:4] * 20_000 else "broken" for text in found)
    print(number, status, *whole, *(text[:3] for text in found))
    number += 1
"""


def test_killed_between_any_two_steps_files_are_old_or_new(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", _DYING, tmp_path], capture_output=True, text=True, check=True)
    lines = [line.split() for line in run.stdout.splitlines()]
    assert len(lines) > 30
    assert {(status, *whole) for _, status, *whole, _, _, _ in lines} == {("9", *["whole"] * 3), ("0", *["whole"] * 3)}
    states = list(dict.fromkeys(" ".join(line[-3:]) for line in lines))
    assert states == ["old old old", "new old old", "new new old", "new new new"], "in their order"
    assert lines[-1][-3:] == ["new"] * 3


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The syncs and renames that are done from now on, in order."""
    told: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        told.append(f"sync {re.sub(r'^[.]tmp-[0-9]+-', 'temporary ', name)}")
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        told.append(f"rename {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    return told


def test_files_are_synced_before_renames_and_folders_after(tmp_path: Path, steps: list[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    durable.write({tmp_path / "a" / "one": b"1", tmp_path / "a" / "two": "2", tmp_path / "b" / "three": _write_three})
    temporary = [f"sync temporary {name}" for name in ("one", "two", "three")]
    assert steps == [*temporary, "rename one", "rename two", "rename three", "sync a", "sync b"]
    found = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"one": b"1", "two": b"2", "three": b"3"}


def _write_three(file: BinaryIO) -> None:
    file.write(b"3")


def test_moved_file_is_synced_before_and_its_folder_after(tmp_path: Path, steps: list[str]) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "half").write_text("all of it")
    durable.move(tmp_path / "models" / "half", tmp_path / "models" / "whole")
    assert steps == ["sync half", "rename whole", "sync models"]
    assert (tmp_path / "models" / "whole").read_text() == "all of it"


def test_new_folder_is_synced_into_the_one_above_it(tmp_path: Path, steps: list[str]) -> None:
    durable.make_folder(tmp_path / "a" / "b")
    durable.make_folder(tmp_path / "a" / "b")
    assert steps == [f"sync {tmp_path.name}", "sync a"]
    assert (tmp_path / "a" / "b").is_dir()


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (f"{durable.TEMPORARY_PREFIX}77-ballast", f"{durable.TEMPORARY_PREFIX}78-learnt.json", "learnt.json"):
        (tmp_path / name).write_text("text")
    durable.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["learnt.json"]


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    durable.write({tmp_path / "a": "ein Wörterbuch\n"})
    assert (tmp_path / "a").read_bytes() == "ein Wörterbuch\n".encode()


@pytest.mark.parametrize("refused", ["fsync", "replace"])
def test_full_disk_raises_and_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, refused, refuse)
    with pytest.raises(OSError, match="No space left"):
        durable.write({tmp_path / "a": "new", tmp_path / "b": "new"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_callback_that_raises_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        durable.write({tmp_path / "a": fail})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_linked_file_outlives_either_name_and_replaces_what_is_there(tmp_path: Path) -> None:
    present, new = tmp_path / "present.png", tmp_path / "new.png"
    present.write_text("pixels")
    new.write_text("old")
    assert durable.link({new: present, tmp_path / "other.png": tmp_path / "gone.png"}) == {tmp_path / "gone.png"}
    assert present.samefile(new)
    present.unlink()
    assert new.read_text() == "pixels"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.png"]


def test_where_there_are_no_hard_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "present.png").write_text("pixels")
    absent = {tmp_path / "lost.png": tmp_path / "gone.png"}
    assert durable.link({tmp_path / "new.png": tmp_path / "present.png", **absent}) == {tmp_path / "gone.png"}
    assert (tmp_path / "new.png").read_text() == "pixels"
    assert not (tmp_path / "new.png").samefile(tmp_path / "present.png")
