"""Commands that only read, typed while no daemon runs: the same answers as from the daemon."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from imgdiffd.cli.main import main
from tests.integration.daemon_process import daemon, drop

CAPTIONS = ["a cat beside a bus", "a cow beside a tree", "an empty attic", "a kill-worker in the park"]


def test_what_the_daemon_said_is_read_from_its_database(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path))
    monkeypatch.setenv("IMGDIFFD_SOCKET_PATH", str(tmp_path / "s"))

    def typed(*words: str) -> str:
        main(words)
        return capsys.readouterr().out

    asked = [["explain", "1", "--json"], ["explain", "1"], ["explain", "4"], ["funnel"], ["funnel", "1"], ["jobs"]]
    asked += [["samples"], ["items", "--json"], ["items", "--order", "oldest", "--noun", "bus"]]
    asked += [["problems", "1"], ["problems", "1", "--json"], ["previews"], ["previews", "--json"]]
    with daemon(tmp_path) as running:
        drop(tmp_path, "captions.csv", ["id,caption", *(f"{n},{each}" for n, each in enumerate(CAPTIONS)), "9,"])
        running.wait_done()
        running.client.set_paused(True)
        told = [typed(*words) for words in asked]
        online = json.loads(typed("status", "--json"))
        assert running.stop() == 0
    assert [typed(*words) for words in asked] == told
    main(["status", "1", "--json"])
    printed = capsys.readouterr()
    assert printed.err == f"imgdiffd: no daemon answers; read from {tmp_path / 'state.db'}\n"
    offline: dict[str, Any] = json.loads(printed.out)
    same = ("jobs", "job_counts", "paused", "removal", "open")
    assert {key: offline[key] for key in same} == {key: online[key] for key in same}
    assert (offline["ready"], offline["problems"]) == (False, ["no daemon answers: nothing is worked on"])
    for words in (["status", "9"], ["funnel", "9"], ["problems", "9"], ["explain", "99"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 1
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 2
        assert words[1] in error[1]


def test_without_a_daemon_and_a_database_the_way_to_start_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path))
    for words in (["status"], ["jobs"], ["funnel"], ["explain", "1"]):
        with pytest.raises(SystemExit):
            main(words)
        assert "imgdiffd serve" in capsys.readouterr().err
