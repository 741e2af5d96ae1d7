"""Early abort as a user meets it: a pilot, then a large file under the thresholds that the pilot has shown."""

from pathlib import Path

from imgdiffd.cli.main import main
from imgdiffd.pipeline import Stage
from imgdiffd.store import Reader
from tests.integration.daemon_process import daemon, drop

PROFILE = """
extends = "default"
name = "own"
[generate.abort]
mode = "on"
loss = 0.2
"""
CAPTIONS = [f"a cat on mat number {number}" for number in range(110)]


def test_a_pilot_gives_the_large_job_its_thresholds(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(PROFILE)
    with daemon(tmp_path, IMGDIFFD_PROFILE=str(tmp_path / "own.toml")) as running:
        drop(tmp_path, "pilot.txt", CAPTIONS[:50])
        running.wait_done()
        (row,) = running.client.previews()
        assert row.bundle.startswith("mini ")
        assert (row.profile, row.calibration.pairs) == ("own", 50)
        below = row.calibration.below.threshold
        assert below is not None
        drop(tmp_path, "large.txt", CAPTIONS)
        job = max(running.wait_done(2).jobs, key=lambda each: each.id)
        assert (job.captions, job.duplicates) == (60, 50)
        assert running.stop() == 0
    with Reader.open(tmp_path / "state.db") as reader:
        pilot, large = (reader.profile_of(each.group).generate.abort for each in reversed(reader.jobs()))
        lost = reader.funnel(job.id)
    assert (pilot.mode, large.mode, large.below) == ("shadow", "on", below)
    given_up = [states for pipeline in lost.progress.values() for states in (pipeline.lost.get(Stage.GENERATE, {}),)]
    assert sum(states.get("preview_too_different", 0) for states in given_up) > 5
    main(["export", str(tmp_path / "out"), "--config", str(_settings(tmp_path))])  # both are one profile to it


def _settings(folder: Path) -> Path:
    file = folder / "settings.toml"
    file.write_text(f'state_folder = "{folder}"\n')
    return file
