"""Early abort in the database: previews are kept with the gate's verdict, and give each job its thresholds."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from imgdiffd.job import JobState
from imgdiffd.method.filters import finishes_anyway
from imgdiffd.method.messages import CompareOutput, GenerateOutput
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Abort
from imgdiffd.pipeline import Stage, Task
from imgdiffd.store import JobRow, Reader, Store, previews
from imgdiffd.store.backup import back_up
from imgdiffd.store.restore import restore
from tests.fakes.answers import PROFILE, captions
from tests.fakes.store_driver import advance_to, ready, record, submit
from tests.integration.faulty import rows

pytestmark = pytest.mark.anyio

LOSS = 0.2  # 14 kept pairs make the bound hold
BUNDLE = "test 0123abcd"


def with_abort(abort: Abort, profile: Profile = PROFILE) -> Profile:
    return profile.model_copy(update={"generate": profile.generate.model_copy(update={"abort": abort})})


ON = with_abort(Abort(mode="on", loss=LOSS))
SHADOW = with_abort(Abort(mode="shadow", loss=LOSS))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "state.db", bundle=BUNDLE) as opened:
        yield opened


Score = Callable[[int], float]


def usual(number: int) -> float:
    """Every third pair is kept; kept ones have previews from 0.7, others from 0.3."""
    return random.Random(number).uniform(0.7, 0.9) if number % 3 == 0 else random.Random(number).uniform(0.3, 0.8)


async def paint(store: Store, tasks: Sequence[Task], profile: Profile, score: Score) -> list[Task]:
    """Record previews and images; returns the pairs that go on."""
    attempts = {task.item: task.attempt for task in tasks}
    outputs = [GenerateOutput(t.item, "a.png", "b.png", 8, 8, 1, {"preview_cosine": score(t.item)}) for t in tasks]
    return list((await store.record(Stage.GENERATE, "cpu:0", profile, outputs, attempts, 1.0)).tasks)


async def judge(store: Store, tasks: Sequence[Task], profile: Profile) -> None:
    """Have the gate keep every third pair."""
    attempts = {task.item: task.attempt for task in tasks}
    outputs = [CompareOutput(t.item, {"clip_image_cosine": 0.95 if t.item % 3 == 0 else 0.1}) for t in tasks]
    await store.record(Stage.COMPARE, "cpu:0", profile, outputs, attempts, 1.0)


async def run(
    store: Store, profile: Profile, count: int = 90, start: int = 1, score: Score = usual, name: str = ""
) -> tuple[JobRow, Profile]:
    """A job whose pairs are painted and judged under the profile that is recorded with it, which is returned."""
    job = await submit(store, captions(count, start), name=name or f"from {start}", profile=profile)
    recorded = await store.profile_of(job.group)
    tasks = [task for task in await ready(store) if task.stage is Stage.REWRITE]
    done = await record(store, tasks, profile=recorded) if tasks else None
    if done:
        await judge(store, await paint(store, done.tasks, recorded, score), recorded)
    return job, recorded


async def kept_by(store: Store) -> tuple[int, int]:
    (row,) = await store.previews()
    return row.calibration.pairs, row.calibration.kept


async def test_a_preview_is_kept_with_what_the_gate_said(store: Store) -> None:
    await run(store, SHADOW, 30)
    (row,) = await store.previews()
    assert (row.profile, row.bundle, row.at, row.loss) == ("default", BUNDLE, 0.4, LOSS)
    assert (row.calibration.pairs, row.calibration.kept) == (30, 10)
    assert row.calibration.below.threshold is None  # 14 kept pairs are needed
    assert row.saved == 0


async def test_pairs_without_previews_leave_no_trace(store: Store) -> None:
    await submit(store, 3, profile=PROFILE)
    await record(store, await advance_to(store, Stage.COMPARE))
    assert await store.previews() == []


async def test_jobs_run_in_shadow_mode_until_the_bound_holds(store: Store) -> None:
    _, first = await run(store, ON)
    assert first.generate.abort.mode == "shadow"
    _, second = await run(store, ON, start=1000)
    abort = second.generate.abort
    assert abort.mode == "on"
    assert abort.below is not None
    assert 0.7 < abort.below < 0.8
    (row,) = await store.previews()
    assert row.calibration.below.threshold == abort.below
    assert row.saved == pytest.approx(row.calibration.given_up * 0.97 * 0.6)


async def test_a_repeat_under_the_recorded_profile_decides_alike(store: Store) -> None:
    await run(store, ON)
    _, recorded = await run(store, ON, start=1000)
    _, again = await run(store, recorded, start=2000)
    assert again == recorded
    assert again.generate.abort.below == recorded.generate.abort.below
    shadow, none = await run(store, with_abort(Abort(mode="on", loss=0.001)), start=3000)
    repeated, still = await run(store, none, start=4000)
    assert (shadow.group, still.generate.abort.mode) == (repeated.group, "shadow")


async def test_thresholds_that_a_user_wrote_stand_as_they_are(store: Store) -> None:
    await run(store, ON)
    own = with_abort(Abort(mode="on", loss=LOSS, above=0.99))
    _, recorded = await run(store, own, start=1000)
    assert recorded == own


async def test_only_pairs_drawn_to_be_finished_count_under_a_threshold(store: Store) -> None:
    await run(store, ON)
    pairs, _ = await kept_by(store)
    _, recorded = await run(store, ON, 300, start=1000)
    drawn = sum(finishes_anyway(recorded, line.text, 1) for line in captions(300, 1000))
    assert 0 < drawn < 30
    assert (await kept_by(store))[0] == pairs + drawn


async def test_a_pair_counts_once_however_often_it_is_painted(store: Store) -> None:
    await run(store, SHADOW)
    before = await kept_by(store)
    assert await store.repaint_missing(lambda names: names) > 0
    again = await paint(store, [t for t in await ready(store) if t.stage is Stage.GENERATE], SHADOW, usual)
    await judge(store, again, SHADOW)
    assert await kept_by(store) == before


async def test_drift_withdraws_the_threshold_from_later_jobs(store: Store) -> None:
    await run(store, ON)
    first, recorded = await run(store, ON, start=1000)
    assert recorded.generate.abort.below is not None
    await run(store, SHADOW, 180, start=2000, score=lambda number: usual(number) - 0.5)
    _, later = await run(store, ON, 1, start=5000)
    (row,) = await store.previews()
    assert row.calibration.below.drifts == 1
    assert later.generate.abort.below is None or later.generate.abort.below < 0.5
    assert await store.profile_of(first.group) == recorded  # a running job keeps its own


async def test_other_seeds_thresholds_and_filters_share_a_calibration(store: Store) -> None:
    await run(store, SHADOW, 6)
    seed = SHADOW.model_copy(update={"seed": 5, "name": "mine"})
    locate = SHADOW.model_copy(update={"locate": SHADOW.locate.model_copy(update={"regions": 1})})
    for place, profile in enumerate((seed, locate, with_abort(Abort(mode="on", loss=0.1, below=0.1)))):
        await run(store, profile, 6, start=1000 * (1 + place))
    assert len(await store.previews()) == 1


@pytest.mark.parametrize("section", ["at", "steps", "pair", "prompt"])
async def test_what_previews_depend_on_has_a_calibration_of_its_own(store: Store, section: str) -> None:
    await run(store, SHADOW, 6)
    other = {
        "at": with_abort(Abort(at=0.5)),
        "steps": SHADOW.model_copy(update={"generate": SHADOW.generate.model_copy(update={"steps": 7})}),
        "pair": SHADOW.model_copy(update={"pair": SHADOW.pair.model_copy(update={"decimals": 2})}),
        "prompt": SHADOW.model_copy(update={"rewrite": SHADOW.rewrite.model_copy(update={"prompt": "{caption}?"})}),
    }[section]
    await run(store, other, 6, start=1000)
    assert [row.calibration.pairs for row in await store.previews()] == [6, 6]


async def test_another_bundle_has_a_calibration_of_its_own(tmp_path: Path) -> None:
    for place, bundle in enumerate(("one", "two")):
        async with Store.open(tmp_path / "state.db", bundle=bundle) as store:
            _, recorded = await run(store, ON, start=1 + 1000 * place)
            assert recorded.generate.abort.mode == "shadow"
            assert [row.bundle for row in await store.previews()] == ["one", "two"][: place + 1]


async def test_a_file_taken_before_is_a_duplicate_whatever_is_in_force(store: Store) -> None:
    first, recorded = await run(store, ON)
    again = await store.add_job("again", "/inbox/again", first.sha256, ON)
    assert (recorded.generate.abort.mode, again.group) == ("shadow", first.group)
    assert (again.state, again.duplicate_of) == (JobState.DONE, first.id)


async def test_captions_of_a_pilot_are_not_painted_again(store: Store) -> None:
    await run(store, ON)
    job, recorded = await run(store, ON, 120, name="all of them")
    assert recorded.generate.abort.mode == "on"
    assert (job.total, job.duplicates) == (30, 90)


async def test_captions_painted_under_thresholds_are_taken_once(store: Store) -> None:
    await run(store, ON)
    _, recorded = await run(store, ON, start=1000)
    assert recorded.generate.abort.mode == "on"
    shadow, _ = await run(store, SHADOW, 90, start=1000, name="in shadow mode")
    assert (shadow.total, shadow.duplicates) == (0, 90)
    off, _ = await run(store, with_abort(Abort(mode="off", loss=LOSS)), 90, start=1000, name="without previews")
    assert (off.total, off.duplicates) == (90, 0)


async def test_pilot_and_large_job_are_one_profile_to_an_export(store: Store, tmp_path: Path) -> None:
    await run(store, ON)
    _, recorded = await run(store, ON, start=1000)
    assert recorded.generate.abort.mode == "on"
    await run(store, SHADOW.model_copy(update={"seed": 1}), 3, start=2000)
    with Reader.open(tmp_path / "state.db") as reader:
        groups = [row.group for row in reader.made()]
    assert groups[0] == groups[1] != groups[2]


async def test_captions_that_a_cancelled_pilot_left_are_taken(store: Store) -> None:
    pilot, _ = await run(store, ON)
    everything = await submit(store, captions(120), name="all of them", profile=ON)
    await store.cancel(pilot.id)  # of whose captions every third had passed the gate and waited
    again = await submit(store, captions(120), name="all of them", profile=ON)
    assert (everything.duplicates, again.duplicate_of) == (90, None)
    assert (again.total, again.duplicates) == (30, 90)


async def test_previews_outlive_their_job_and_are_in_backups(store: Store, tmp_path: Path) -> None:
    job, _ = await run(store, SHADOW)
    counted = await store.previews()
    await store.cancel(job.id)
    await store.mark_deleted(job.id)
    while await store.delete_some(job.id):
        pass
    assert await store.jobs() == []
    assert await store.previews() == counted
    with Reader.open(tmp_path / "state.db") as reader:
        assert reader.previews() == counted
    back_up(tmp_path / "state.db", tmp_path / "monday.db")
    restore(tmp_path / "monday.db", tmp_path / "restored.db")
    with Reader.open(tmp_path / "restored.db") as reader:
        assert reader.previews() == counted


async def test_the_older_half_goes_where_there_are_too_many(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(previews, "MOST", 100)
    await run(store, SHADOW, 100)
    assert (await kept_by(store))[0] == 100
    await run(store, SHADOW, 6, start=1000)
    assert (await kept_by(store))[0] == 56
    assert rows(tmp_path, "SELECT min(item_id), max(item_id) FROM previews") == [(51, 106)]


async def test_the_last_profile_says_what_may_be_lost(store: Store) -> None:
    await run(store, SHADOW, 6)
    named = with_abort(Abort(mode="shadow", loss=0.3, finished=0.5)).model_copy(update={"name": "later"})
    await run(store, named, 6, start=1000)
    (row,) = await store.previews()
    assert (row.profile, row.loss) == ("later", 0.3)


async def test_a_cancelled_jobs_file_is_admitted_with_thresholds_of_today(store: Store) -> None:
    pilot, recorded = await run(store, ON)
    await store.cancel(pilot.id)
    again = await store.add_job("again", "/inbox/again", pilot.sha256, ON)
    assert (recorded.generate.abort.mode, again.duplicate_of) == ("shadow", None)
    assert (await store.profile_of(again.group)).generate.abort.mode == "on"
