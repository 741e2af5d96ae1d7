"""Other thresholds, asked of the database that a daemon left: what they would yield, and what is missing for it."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import anyio
import pytest

from imgdiffd.cli.main import main
from imgdiffd.daemon.views import funnel_view
from imgdiffd.method.profile_files import BUILT_IN
from imgdiffd.store import Reader, Store
from tests.integration.daemon_process import daemon, drop

CAPTIONS = [
    f"a {animal} beside a {thing}" for animal in ("cat", "dog", "cow", "pig") for thing in ("bus", "tree", "car")
]
PROFILES = {
    "same": "",
    "looser": "[pair]\nabove = 0.4\n",
    "stricter": "[locate]\ncrop_cosine_below = 0.15\n[describe]\nmatch_above = 0.5\n",
    "other-texts": '[describe]\nprompt = "What is at {box}?"\n',
    "other-images": "[generate]\nsteps = 30\n",
    "none-alike": "[pair]\nabove = 0.96\n",
    "judged": "[natural]\nenabled = true\n",
}


def rejected(state: Path) -> list[int]:
    with closing(sqlite3.connect(state / "state.db")) as connection:
        return [item for (item,) in connection.execute("SELECT id FROM items WHERE state = 'rejected'")]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choosing")
    with daemon(folder / "state", IMGDIFFD_REMOVAL="false") as running:
        drop(folder / "state", "captions.txt", CAPTIONS)
        running.wait_done()
        assert running.stop() == 0
    for item in rejected(folder / "state"):  # as the daemon's clean-up does sooner or later
        for image in (folder / "state" / "pictures").rglob(f"{item}-*"):
            image.unlink()
    for name, changes in PROFILES.items():
        (folder / f"{name}.toml").write_text(f'extends = "default"\nname = "{name}"\n{changes}')
    return folder / "state"


@pytest.fixture
def typed(state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(state))
    monkeypatch.chdir(state.parent)

    def ask(*words: str) -> Any:
        main(words)
        printed = capsys.readouterr().out
        return json.loads(printed) if "--json" in words else printed

    return ask


def planned(typed: Any, profile: str, *words: str) -> tuple[dict[str, dict[str, Any]], dict[str, int], dict[str, Any]]:
    """The steps by name, the captions that wait by stage, and everything."""
    found = typed("refilter", "--profile", f"{profile}.toml", "--dry-run", "--json", *words)
    steps = {step["name"]: step for step in found["steps"]}
    return steps, {work["stage"]: work["captions"] for work in found["work"]}, found


def test_the_same_profile_gives_todays_funnel_and_needs_nothing(typed: Any, state: Path) -> None:
    steps, work, found = planned(typed, "same")
    with Reader.open(state / "state.db") as reader:
        funnel = {step.name: step.count for step in funnel_view(reader.funnel()).steps}
    assert {name: step["today"] for name, step in steps.items()} == funnel
    assert {name: step["then"] for name, step in steps.items()} == funnel
    assert funnel["samples"] > funnel["pairs with a sample"] > 0
    assert (work, found["painted_again"], found["redo"], found["seconds"]) == ({}, 0, [], 0)
    assert all(not step["won"] and not step["lost"] for step in steps.values())
    assert "nothing is missing: no device is needed" in typed("refilter", "--profile", "same.toml", "--dry-run")


def test_pairs_that_are_won_must_be_painted_again(typed: Any) -> None:
    steps, work, found = planned(typed, "looser")
    gate = steps["pairs alike enough"]
    assert gate["then"] == gate["today"] + gate["won"]["pair_too_different"] == len(CAPTIONS)
    assert found["painted_again"] == gate["won"]["pair_too_different"] == work["generate"] > 0
    assert steps["pairs with a sample"]["open"] == work["generate"]
    assert work["render"] == 0  # follows from what waits now
    assert found["seconds"] > 0
    assert steps["samples"]["then"] == steps["samples"]["today"]
    assert "must be painted again" in typed("refilter", "--profile", "looser.toml", "--dry-run")


def test_samples_that_are_lost_are_told_by_the_filter_that_loses_them(typed: Any) -> None:
    steps, work, _ = planned(typed, "stricter")
    samples = steps["samples"]
    assert work == {}
    assert samples["then"] * 2 == samples["today"]  # the fakes' second box differs less
    assert samples["lost"] == {"crops_too_similar": samples["today"] - samples["then"]}
    assert steps["regions that differ"]["lost"] == samples["lost"]


@pytest.mark.parametrize(
    ("profile", "stage", "settings"),
    [
        ("other-texts", "describe", ["describe.prompt"]),
        ("other-images", "generate", ["generate.steps"]),
        ("judged", "vet", []),
    ],
)
def test_a_profile_that_changes_more_says_from_where_on(
    typed: Any, profile: str, stage: str, settings: list[str]
) -> None:
    steps, work, found = planned(typed, profile)
    assert [(each["stage"], each["settings"]) for each in found["redo"]] == [(stage, settings)]
    waiting = steps["captions"]["today"] if stage == "generate" else steps["pairs alike enough"]["today"]
    assert work[stage] == waiting
    assert steps["samples"]["then"] == 0


@pytest.mark.parametrize("profile", ["looser", "stricter", "other-texts", "none-alike"])
def test_a_dry_run_counts_what_refilter_then_does(
    typed: Any, state: Path, tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, work, found = planned(typed, profile)
    shutil.copytree(state, tmp_path / "state")
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path / "state"))
    bounds = ("thresholds", "--profile", "same.toml", "--score", "pair", "--json")
    before = typed(*bounds)
    done = typed("refilter", "--profile", f"{profile}.toml", "--paint", "--json")
    assert typed(*bounds) == before, "captions under two profiles count once"
    assert done["captions"] == found["captions"] == len(CAPTIONS)
    assert done["waiting"] == {stage: count for stage, count in work.items() if count}
    assert done["painted"] == found["painted_again"]
    assert done["sampled"] <= steps["pairs with a sample"]["then"]
    if not work:
        assert sum(job["samples"] for job in done["jobs"]) == steps["samples"]["then"]
        assert (done["sampled"], done["rejected"]) == (
            steps["pairs with a sample"]["then"],
            len(CAPTIONS) - steps["pairs with a sample"]["then"],
        )


def test_one_job_alone_is_asked_about_and_an_unknown_one_refused(typed: Any) -> None:
    assert planned(typed, "same", "--job", "1")[2]["captions"] == len(CAPTIONS)
    with pytest.raises(SystemExit) as ended:
        typed("refilter", "--profile", "same.toml", "--dry-run", "--job", "9")
    assert ended.value.code == 1
    with pytest.raises(SystemExit) as ended:
        typed("refilter", "--profile", "none", "--dry-run")
    assert ended.value.code == 78


def test_a_read_only_state_folder_is_enough(typed: Any, state: Path) -> None:
    kept = state / "columns"
    before = planned(typed, "looser")[2]
    for path in kept.iterdir():
        path.unlink()
    kept.chmod(0o500)
    try:
        assert planned(typed, "looser")[2] == before
    finally:
        kept.chmod(0o700)


def test_thresholds_say_what_a_profile_with_that_bound_would_yield(typed: Any, state: Path) -> None:
    found = typed("thresholds", "--profile", "same.toml", "--json")
    bounds = {each["key"]: each for each in found["bounds"]}
    assert set(bounds) == {
        "pair.above", "pair.below", "locate.crop_cosine_below", "locate.noun_above", "describe.text_cosine_below",
        "describe.match_above",
    }  # fmt: skip
    crops = bounds["locate.crop_cosine_below"]
    assert crops["marks"].keys() == {*BUILT_IN, "same"}
    assert (crops["marks"]["mini"], crops["marks"]["same"]) == (0.97, 0.85)
    assert sum(crops["counts"]) == crops["own"]["passing"] > 0
    for choice in crops["choices"][::6]:
        (state.parent / "moved.toml").write_text(
            f'extends = "default"\n[locate]\ncrop_cosine_below = {choice["bound"]}\n'
        )
        steps, work, _ = planned(typed, "moved")
        assert (choice["samples"], choice["open"]) == (steps["samples"]["then"], sum(work.values()))
    shown = typed("thresholds", "--profile", "same.toml", "--score", "crops", "--svg", "scores.svg")
    assert "locate.crop_cosine_below = 0.85" in shown
    assert "pair.above" not in shown
    drawn = ElementTree.fromstring((state.parent / "scores.svg").read_text())
    assert any("locate.crop_cosine_below" in (text.text or "") for text in drawn.iter())


def test_thresholds_of_an_empty_database_say_so(typed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path))
    anyio.run(emptied, tmp_path / "state.db")
    assert "there are no scores yet" in typed("thresholds", "--svg", str(tmp_path / "none.svg"))
    assert ElementTree.fromstring((tmp_path / "none.svg").read_text()) is not None
    assert "from what is stored of 0 captions" in typed("refilter", "--profile", "mini", "--dry-run")


async def emptied(database: Path) -> None:
    async with Store.open(database):
        pass
