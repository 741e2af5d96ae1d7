"""The natural-image filter as a daemon's users meet it: switched on, refused without a judge, told of in reports."""

from pathlib import Path

import pytest

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.errors import DaemonError
from imgdiffd.status import JobView
from imgdiffd.testing.stages import UNNATURAL_WORD
from tests.integration.daemon_process import LIMIT_S, daemon, drop

CAPTIONS = ["a cat beside a bus", "a dog beside a tree", f"an {UNNATURAL_WORD} dog beside a chair"]


@pytest.fixture
def vetted(tmp_path: Path) -> Path:
    """A profile that turns the filter on."""
    path = tmp_path / "vetted.toml"
    path.write_text('extends = "default"\n[natural]\nenabled = true\n')
    return path


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """The miniature bundle and a judge, which fake workers never open."""
    mini = load_bundle("mini")
    text = mini.path.read_text("utf-8").replace('source = "', f'source = "{mini.path.parent}/')
    path = tmp_path / "judged.toml"
    path.write_text(f'{text}\n[judge]\nsource = "judge"\nweights_gb = 0.001\npeak_gb = 0.001\n')
    return path


def test_an_unnatural_pair_is_rejected_with_its_reason_shown(tmp_path: Path, vetted: Path, judged: Path) -> None:
    folder = tmp_path / "d"
    with daemon(folder, IMGDIFFD_PROFILE=str(vetted), IMGDIFFD_BUNDLE=str(judged)) as running:
        drop(folder, "captions.txt", CAPTIONS)
        status = running.wait_done()
        (job,) = status.jobs
        assert (job.sampled, job.rejected, job.failed, status.problems) == (2, 1, 0, ())
        (view,) = [view for view in job.stages if view.stage == "vet"]
        assert (view.passed, view.stopped) == (2, 1)
        assert any("judge" in device.roles for device in status.devices)
        (step,) = [step for step in running.client.funnel().steps if step.name == "pairs that look natural"]
        assert (step.count, step.base, step.lost) == (2, 3, {"unnatural": 1})
        story = running.client.explain(3)
        assert (story["stage"], story["state"], story["reason"]) == ("vet", "rejected", "unnatural")
        assert story["detail"] == "answer 'no.', yes_probability 0.2000, wanted yes"
        assert story["pair"]["answer"] == "no."
        assert story["pair"]["scores"]["yes_probability"] == 0.2


def test_finished_samples_are_judged_as_the_scripts_do(tmp_path: Path, judged: Path) -> None:
    profile = tmp_path / "screened.toml"
    profile.write_text('extends = "scripts"\n[natural]\nenabled = true\n')
    folder = tmp_path / "d"
    with daemon(folder, IMGDIFFD_PROFILE=str(profile), IMGDIFFD_BUNDLE=str(judged)) as running:
        drop(folder, "captions.txt", CAPTIONS)
        (job,) = running.wait_done().jobs
        assert (job.sampled, job.rejected, job.failed) == (2, 1, 0)
        assert [view.stage for view in job.stages][-3:] == ["contrast", "screen", "render"]
        steps = {step.name: step for step in running.client.funnel().steps}
        assert steps["samples"].lost == {"unnatural": 2}
        story = running.client.explain(3)
        assert (story["stage"], story["state"], story["reason"]) == ("screen", "rejected", "unnatural")
        assert [(each["reason"], each["scores"]["yes_probability"]) for each in story["regions"]] == [
            ("unnatural", 0.2)
        ] * 2


def test_a_profile_that_needs_a_judge_is_refused_without_one(
    tmp_path: Path, vetted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the daemon's folder too: a profile's name over the socket is short
    source = tmp_path / "mine.txt"
    source.write_text(f"{CAPTIONS[0]}\n")
    with daemon(tmp_path / "d", IMGDIFFD_PROFILE=str(vetted)) as refused:
        assert refused.process.wait(LIMIT_S) != 0
        assert "profile vetted needs a judge, bundle mini has none" in refused.log.read_text()
    with daemon(tmp_path / "e") as running:
        running.wait(lambda status: status.ready, "readiness")
        with pytest.raises(DaemonError, match="profile vetted needs a judge, bundle mini has none"):
            running.client.submit(source, profile=vetted.name)
        assert running.client.submit(source).captions == 1
        status = running.wait_done()
        assert "vet" not in {view.stage for view in status.jobs[0].stages}
        assert "pairs that look natural" not in {step.name for step in running.client.funnel().steps}


def _waiting(job: JobView) -> int:
    return sum(view.waiting for view in job.stages if view.stage == "vet")


def test_captions_waiting_for_a_lost_judge_are_a_status_problem(tmp_path: Path, vetted: Path, judged: Path) -> None:
    folder = tmp_path / "d"
    unable = f"{CAPTIONS[0]} hang-worker@vet"
    with daemon(folder, IMGDIFFD_PROFILE=str(vetted), IMGDIFFD_BUNDLE=str(judged)) as running:
        drop(folder, "captions.txt", [unable])
        running.wait(lambda status: any(_waiting(job) for job in status.jobs), "a caption before the judge")
        running.kill()
    with daemon(folder) as running:
        status = running.wait(lambda status: bool(status.problems) and status.ready, "the problem")
        assert status.problems == ("vet: 1 caption waiting, no device holds judge",)
