"""Caption files as people send them to a running daemon: hostile ones, several at once, folders, pipes."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgdiffd.cli.main import main
from tests.integration.daemon_process import RunningDaemon, daemon
from tests.integration.faulty import until

DOG, CAT = "a dog beside a tree", "a cat beside a bus"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with daemon(tmp_path_factory.mktemp("state")) as process:
        process.wait(lambda status: status.ready, "readiness")
        yield process


@pytest.fixture(autouse=True)
def _user(running: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(running.folder))
    monkeypatch.setenv("IMGDIFFD_SOCKET_PATH", str(running.folder / "s"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str], str]:
    """Status, lines printed, and what was said of errors."""
    status = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err


def shell(line: str, folder: Path) -> str:
    """What a command line of bash printed; it must end well."""
    command = f'imgdiffd() {{ {sys.executable} -P -m imgdiffd "$@"; }}; {line}'
    done = subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def post(running: RunningDaemon, name: str, content: bytes, **options: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(running.folder / "s"))) as client:
        return client.post("http://x/jobs", params={"name": name, **options}, content=content, timeout=60)


def test_hostile_files_cost_neither_the_daemon_nor_the_next(running: RunningDaemon, tmp_path: Path) -> None:
    times = pa.table({"caption": pa.array([1], pa.timestamp("ns")), "id": pa.array([1], pa.time64("ns"))})
    pq.write_table(times, tmp_path / "times.parquet")
    files = {
        "surrogate.jsonl": b'{"\\ud800":"a cat"}',
        "digits.json": b'[{"caption": "x", "id": ' + b"9" * 5000 + b"}]",
        "times.parquet": (tmp_path / "times.parquet").read_bytes(),
        "cut.jsonl.gz": gzip.compress(b'"a dog"\n' * 1000)[:-9],
        "image.png": b"\x89PNG\r\n\x1a\n\0\0",
    }
    inbox = running.folder / "inbox"
    for name, content in files.items():
        answer = post(running, name, content)
        assert (name, answer.status_code) == (name, 422)
        assert answer.json()["detail"]
        (inbox / f"dropped-{name}").write_bytes(content)
    until(lambda: len(list((inbox / "failed").glob("dropped-*.reason.txt"))) == len(files), "every reason")
    assert post(running, "fine.txt", f"{DOG} at last\n".encode()).status_code == 200
    (inbox / "fine.txt").write_text(f"{CAT} at last\n")
    until(lambda: sorted(path.name for path in (inbox / "done").glob("fine*")) == ["fine-2.txt", "fine.txt"], "the job")
    assert running.client.status().ready


def test_several_files_are_sent_and_the_bad_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("a.txt", f"{DOG} a\n"), ("b.json", "{"), ("c.txt", f"{CAT} c\n")):
        (tmp_path / name).write_text(content)
    (tmp_path / "empty").mkdir()
    good = [tmp_path / "a.txt", tmp_path / "c.txt"]
    bad: list[str | Path] = [tmp_path / "b.json", "/dev/null", tmp_path / "empty", ""]
    status, lines, said = run(capsys, "submit", good[0], *bad, good[1])
    assert status == 1
    assert [line.partition(":")[0] for line in lines] == [str(path) for path in good]
    words = ["b.json: broken or cut-off JSON", "/dev/null is a device", "empty has no caption file", "names no file"]
    assert [word for word in words if word not in said] == []


def test_a_folders_caption_files_are_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "1.txt").write_text(f"{DOG} in a folder\n")
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(json.dumps(f"{CAT} in a folder").encode()))
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "more").mkdir()
    status, lines, said = run(capsys, "submit", tmp_path)
    assert (status, len(lines)) == (0, 2)
    assert "left out, since they are no files or do not end like caption files: 2" in said


def test_pipes_and_the_standard_input_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"caption": "{DOG} through a pipe", "title": "{CAT} through a pipe"}}\n')
    assert "1 caption," in shell("imgdiffd submit <(cat a.jsonl)", tmp_path)
    assert "1 caption," in shell("cat a.jsonl | imgdiffd submit --field title --name b.jsonl -", tmp_path)


def test_unreadable_records_are_shown_and_lie_in_done(
    running: RunningDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.jsonl").write_text(
        f'"{DOG} among others"\n{{"\\ud800[31m": 1}}\n{{"caption": ""}}\n' + "1\n" * 50
    )
    status, lines, _ = run(capsys, "submit", tmp_path / "some.jsonl")
    assert (status, "52 unreadable" in lines[0]) == (0, True)
    job = lines[0].split("job ")[1].partition(",")[0]
    status, lines, _ = run(capsys, "problems", job)
    assert (status, len(lines)) == (0, 52)
    assert lines[1] == "line 3: the caption has no text (empty)"
    status, lines, _ = run(capsys, "problems", job, "--json")
    assert json.loads("\n".join(lines))[1] == {"line": 3, "reason": "empty", "message": "the caption has no text"}
    page = running.client.problems(int(job), limit=2, after=1)
    assert ([problem.line for problem in page.problems], page.total, page.next) == ([3, 4], 52, 3)
    assert len((running.folder / "inbox" / "done" / "some.jsonl.problems.tsv").read_text().splitlines()) == 53
    status, _, said = run(capsys, "problems", "999")
    assert (status, "there is no job 999" in said) == (1, True)
