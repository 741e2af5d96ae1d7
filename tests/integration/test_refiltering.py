"""Finished captions under another profile: with a daemon that goes on working, and without one."""

import json
import os
from pathlib import Path

import pytest

from imgdiffd.cli.main import main
from imgdiffd.errors import RefusedError
from imgdiffd.pipeline import Pipeline
from imgdiffd.store import Reader, SampleRow
from tests.integration.daemon_process import daemon, drop

CAPTIONS = [f"a cat beside tree number {number}" for number in range(12)]
LIMITED = 'extends = "default"\n[locate]\nregions = 1\n'
TURNED = 'extends = "default"\n[contrast]\nsides = "original_left"\n'
REPAINTED = 'extends = "default"\n[generate]\nsteps = 9\n'


def facts(folder: Path, job: int) -> list[tuple[object, ...]]:
    """What the job's samples are, images included, but not what they are called."""

    def told(sample: SampleRow) -> tuple[object, ...]:
        images = [(folder / "pictures" / name).read_bytes() for name in (sample.left_image, sample.right_image)]
        texts = sample.text1, sample.text2, sample.difference
        return sample.caption1, sample.caption2, sample.region, sample.box, *texts, sample.left, *images

    with Reader.open(folder / "state.db") as reader:
        return [told(sample) for sample in reader.samples([job])]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that the commands use, with profiles beside it."""
    for name, text in (("limited", LIMITED), ("turned", TURNED), ("repainted", REPAINTED)):
        (tmp_path / f"{name}.toml").write_text(text)
    state = tmp_path / "state"
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(state))
    monkeypatch.setenv("IMGDIFFD_SOCKET_PATH", str(state / "s"))
    return state


def test_profile_is_changed_with_and_without_a_daemon(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limited, turned, repainted = (str(folder.parent / f"{name}.toml") for name in ("limited", "turned", "repainted"))
    with daemon(folder) as running:
        drop(folder, "captions.txt", CAPTIONS)
        running.wait_done()
        main(["refilter", "--profile", limited])
        printed = capsys.readouterr().out
        assert "12 captions: " in printed
        assert "nothing waits\njob 2: 12 captions of job 1 (captions.txt), " in printed
        assert running.client.refilter(limited).captions == 0
        with pytest.raises(RefusedError, match=r"12 pairs of 12 captions would have to be painted.*--paint"):
            running.client.refilter(repainted)
        assert running.client.refilter(turned, job=1).waiting.keys() == {"contrast"}
        running.wait_done(3)
        assert running.client.submit(folder / "inbox" / "done" / "captions.txt", profile=limited).duplicates == 12
        assert running.stop() == 0
    with daemon(folder.parent / "other", IMGDIFFD_PROFILE=turned) as running:
        drop(folder.parent / "other", "captions.txt", CAPTIONS)
        running.wait_done()
        assert running.stop() == 0
    assert len(facts(folder, 2)) > 5
    assert facts(folder, 3) == facts(folder.parent / "other", 1)

    (folder.parent / "again.toml").write_text(TURNED)
    main(["refilter", "--profile", str(folder.parent / "again.toml"), "--job", "3", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [(each["of"], each["captions"]) for each in told["jobs"]] == [(3, 12)]
    assert (told["waiting"], told["painted"]) == ({}, 0)
    assert facts(folder, told["jobs"][0]["job"]) == facts(folder, 3)
    with pytest.raises(SystemExit):
        main(["refilter", "--profile", repainted])
    assert "12 pairs of 12 captions would have to be painted" in capsys.readouterr().err
    main(["refilter", "--profile", repainted, "--paint"])
    assert "no daemon runs" in capsys.readouterr().err
    with daemon(folder) as running:
        running.wait_done(6)
        funnel = running.client.funnel(6)
        assert running.stop() == 0
    assert funnel.steps[0].count == 12
    with Reader.open(folder / "state.db") as reader:
        assert reader.funnel(6).progress[Pipeline.REPLACEMENT].samples == len(facts(folder, 6))


def test_refilter_without_a_database_names_the_way_to_start(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["refilter", "--profile", "paper"])
    assert "imgdiffd serve" in capsys.readouterr().err
    assert not (folder / "state.db").exists()


def test_unknown_job_and_profile_are_refused(folder: Path) -> None:
    with daemon(folder) as running:
        running.wait(lambda status: status.ready, "a ready daemon")
        with pytest.raises(RefusedError, match="there is no job 7"):
            running.client.refilter("paper", job=7)
        with pytest.raises(RefusedError, match="profile nowhere: unknown"):
            running.client.refilter("nowhere")
        assert running.client.refilter("paper").jobs == ()
