"""What people are shown of counts: a job's gate and the funnel."""

from imgdiffd.daemon.views import funnel_view, gate_view
from imgdiffd.job import ItemState
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.status import GateView
from imgdiffd.store import FunnelCounts, Progress

HALF_PAINTED = {"preview_too_different": 3, "preview_too_similar": 1, "broke_generate": 1}
COMPARED = {"pair_too_different": 4, "score_missing": 1, "pair_too_similar": 2}
PROGRESS = Progress(
    {
        Stage.GENERATE: {ItemState.REJECTED: 4, ItemState.FAILED: 1},
        Stage.COMPARE: {ItemState.REJECTED: 7},
        Stage.LOCATE: {ItemState.READY: 2},
    },
    {Stage.GENERATE: HALF_PAINTED, Stage.COMPARE: COMPARED},
    0,
)


def test_the_gate_counts_both_sides_painted_and_half_painted() -> None:
    assert gate_view(PROGRESS) == GateView(too_different=7, too_similar=3, half_painted=4)
    assert gate_view(Progress({}, {}, 0)) == GateView()


def test_pairs_given_up_half_painted_are_lost_at_painting() -> None:
    progress = {Pipeline.REPLACEMENT: PROGRESS, Pipeline.REMOVAL: Progress({}, {}, 0)}
    steps = {step.name: step for step in funnel_view(FunnelCounts(0, 0, progress, {})).steps}
    painted, alike = steps["pairs painted"], steps["pairs alike enough"]
    assert (painted.base, painted.count, painted.lost) == (14, 9, HALF_PAINTED)
    assert (alike.base, alike.count, alike.lost) == (9, 2, COMPARED)
