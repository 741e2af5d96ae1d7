"""What stored scores say of another profile is what a run under that profile says, as far as they reach."""

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.choosing.columns import PARTS, SCORE
from imgdiffd.choosing.gathering import STAGES, STATES, gather
from imgdiffd.choosing.outlook import outlook
from imgdiffd.choosing.plan import plan
from imgdiffd.job import ItemState
from imgdiffd.method.filters import left_image
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, CLIP_TEXT_COSINE, Candidate, LocateOutput
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Bound
from imgdiffd.method.replay import replay
from imgdiffd.pipeline import Stage
from tests.benchmarks.choosing import drawn_columns
from tests.fakes.world import Run
from tests.unit.choosing.drawn import ANSWERS, CAPTION, MATCHES, NOUNS, Drawn, Told, case, columns_of


@given(st.integers(0, 2**64))
def test_outlook_says_what_a_replay_says(seed: int) -> None:
    runs, profile = case(seed)
    columns = columns_of(runs)
    found = outlook(columns, profile, lambda group: runs[group - 1].profile)
    for row, run in enumerate(runs):
        replayed, again = replay(run.stored, profile), Run(run.world, profile, run.item)
        for _, output in replayed.outputs:
            again.take(output)
        ended = again.ended
        assert (found.stage[row], found.state[row]) == (STAGES[replayed.stage], STATES[replayed.state])
        reason = ended.verdict.reason if ended and not ended.verdict.passed else None
        assert found.reasons[found.reason[row]] == (reason or "")
        if STAGES[replayed.stage] > STAGES[Stage.LOCATE]:
            box = found.regions["box"][found.regions["item"] == row]
            located = next(step for output, step in again.taken if isinstance(output, LocateOutput))
            assert (box - columns.starts("boxes")[row]).tolist() == [region.candidate for region in located.regions]


def test_columns_of_the_benchmark_are_like_those_of_a_database() -> None:
    drawn, real, own = drawn_columns(20, 10, 8, 3), gather((), (), {}), load_profile("paper")
    for name in ("items", *PARTS):
        assert {key for key in getattr(drawn, name) if not key.startswith(SCORE)} == getattr(real, name).keys()
    found = plan(drawn, own, lambda group: own)
    assert (found.captions, found.steps[-1].today) == (20, 30)


def test_a_region_that_moves_up_waits_where_its_sides_change() -> None:
    seen = set()
    scores = (
        {CLIP_IMAGE_COSINE: 0.2, **dict.fromkeys(NOUNS, 0.4)},
        {CLIP_IMAGE_COSINE: 0.6, **dict.fromkeys(NOUNS, 0.9)},
    )
    told = Told("a cat", "a dog", {CLIP_TEXT_COSINE: 0.2, **dict.fromkeys(MATCHES, 0.9)}, "it changed", "", {})
    boxes = [(Candidate(1, (50 * n, 0, 50 * n + 40, 40), found), told) for n, found in enumerate(scores)]
    for seed in range(12):
        own = load_profile("default").model_copy(update={"seed": seed})
        run = Run(Drawn(7, ANSWERS[:1], {CLIP_IMAGE_COSINE: 0.95}, {}, ("", {}), boxes), own, 1).finish()
        profile = own.model_copy(update={"locate": own.locate.model_copy(update={"noun_above": Bound(value=0.5)})})
        found = outlook(columns_of([run]), profile, {1: own}.__getitem__)
        changes = left_image(own, CAPTION, 1, 0) != left_image(own, CAPTION, 1, 1)
        wanted = (Stage.CONTRAST, ItemState.READY) if changes else (Stage.RENDER, ItemState.SAMPLED)
        assert (found.stage[0], found.state[0]) == (STAGES[wanted[0]], STATES[wanted[1]])
        seen.add(changes)
    assert seen == {True, False}
