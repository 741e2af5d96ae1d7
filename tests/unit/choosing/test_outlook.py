"""What stored scores say of another profile is what a run under that profile says, as far as they reach."""

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.choosing.columns import PARTS, SCORE
from imgdiffd.choosing.gathering import STAGES, STATES, gather
from imgdiffd.choosing.outlook import outlook
from imgdiffd.choosing.plan import plan
from imgdiffd.method.messages import LocateOutput
from imgdiffd.method.profile import load_profile
from imgdiffd.method.replay import replay
from imgdiffd.pipeline import Stage
from tests.benchmarks.choosing import drawn_columns
from tests.fakes.world import Run
from tests.unit.choosing.drawn import case, columns_of


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
