"""What the miniature evaluation says of early abort: held out, with its bound, and promised only where it may be."""

import random

import pytest

from imgdiffd.method.profile import load_profile
from imgdiffd.mini.early_abort import GATE, Painted, abort_figures, watching

PROFILE = watching(load_profile("mini"))


def painted(count: int, telling: float) -> list[Painted]:
    """Pairs of which 60 % fail; previews follow the final cosine, the closer the more `telling`."""
    draw = random.Random(count)
    finals = [GATE + draw.uniform(-0.06, 0.04) for _ in range(count)]
    return [Painted(final + draw.gauss(0, 0.1 * (1 - telling)), final) for final in finals]


def test_enough_pairs_are_held_to_what_they_promise() -> None:
    rejected, promised, lost, caught, saved = abort_figures(painted(6000, 0.9), PROFILE)
    assert 0.58 < rejected.value < 0.62
    assert promised.value == PROFILE.generate.abort.loss
    assert (lost.target, saved.target) == (0.005, 0.1)
    assert lost.met
    assert saved.met
    assert 0.1 < saved.value < 0.6 * 0.5 * 0.97
    assert saved.value == pytest.approx(0.97 * 0.5 * (caught.hits + lost.hits) / 2000)


def test_previews_that_tell_nothing_miss_the_target() -> None:
    *_, lost, _, saved = abort_figures(painted(6000, 0.0), PROFILE)
    assert lost.met
    assert not saved.met


def test_few_pairs_promise_what_they_can_and_no_target() -> None:
    *_, promised, lost, _, saved = abort_figures(painted(200, 0.9), PROFILE)
    assert 0.02 < promised.value < 0.10
    assert (lost.target, saved.target) == (None, None)
    assert "% with 95 % certainty" in lost.name


def test_without_kept_pairs_nothing_is_said_of_thresholds() -> None:
    assert len(list(abort_figures([], PROFILE))) == 1
    assert len(list(abort_figures([Painted(0.5, 0.5)] * 20, PROFILE))) == 1
