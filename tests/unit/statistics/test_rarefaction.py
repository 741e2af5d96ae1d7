"""Counts in a random part of a dataset are expected exactly as drawing every part would give them."""

from itertools import combinations

import pytest

from imgdiffd.statistics.rarefaction import expected_kinds

SAMPLES = [{"cat"}, {"cat", "dog"}, {"dog"}, {"cat"}, {"bus"}, {"cat", "bus"}]


@pytest.mark.parametrize("drawn", range(len(SAMPLES) + 1))
def test_expectation_is_the_mean_over_every_part(drawn: int) -> None:
    parts = list(combinations(SAMPLES, drawn))
    mean = sum(len(set().union(*part)) for part in parts) / len(parts)
    kinds = set().union(*SAMPLES)
    assert expected_kinds((sum(k in s for s in SAMPLES) for k in kinds), len(SAMPLES), drawn) == pytest.approx(mean)


def test_size_of_a_paper_is_no_trouble() -> None:
    assert expected_kinds([1] * 100_000, 100_000, 1_000) == pytest.approx(1_000)


def test_more_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="3 samples cannot be drawn from 2"):
        expected_kinds([1], 2, 3)
