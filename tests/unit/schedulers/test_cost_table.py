"""The laws of the cost table: what it accepts, how it travels, what it projects."""

import math
from pathlib import Path

import pytest

from imgdiffd.errors import ConfigurationError
from imgdiffd.pipeline import CAPTION_STAGES, OPTIONAL_STAGES, Stage
from imgdiffd.schedulers.cost_table import (
    A100,
    CAPTIONS,
    FIRST_GUESS_S,
    ITEMS_PER_CAPTION,
    CostTable,
    guessed_seconds_per_caption,
    projected_hours,
)
from imgdiffd.schedulers.simulation.command import read_costs


def test_a_table_survives_json() -> None:
    assert CostTable.from_json(A100.to_json()) == A100


def test_the_stages_are_the_pipelines_without_the_optional_ones() -> None:
    assert [*ITEMS_PER_CAPTION] == [stage.value for stage in CAPTION_STAGES if stage not in OPTIONAL_STAGES]


def test_the_papers_captions_take_2_79_days_on_four_devices() -> None:
    assert projected_hours(A100, CAPTIONS, 4) / 24 == pytest.approx(2.79, abs=0.005)


def test_first_guesses_are_the_table_and_cover_every_stage() -> None:
    assert {*FIRST_GUESS_S} == {*Stage}
    assert {stage: FIRST_GUESS_S[Stage(stage)] for stage in A100.seconds_per_item} == A100.seconds_per_item
    per_caption = sum(map(guessed_seconds_per_caption, map(Stage, ITEMS_PER_CAPTION)))
    assert per_caption / 3600 == pytest.approx(projected_hours(A100, 1, 1))


def test_hours_weigh_each_stage_by_the_funnel() -> None:
    table = CostTable("any", dict.fromkeys(ITEMS_PER_CAPTION, 0.0) | {"locate": 3600.0}, "made up")
    assert projected_hours(table, 118_000, 1) == pytest.approx(38_533)


def test_1000_captions_take_8164_seconds_by_the_built_in_table() -> None:
    assert projected_hours(A100, 1000, 4) == pytest.approx(8164 / 4 / 3600)


@pytest.mark.parametrize("cost", [-1.0, math.nan, math.inf])
def test_a_cost_is_finite_and_not_negative(cost: float) -> None:
    with pytest.raises(ConfigurationError, match="rewrite"):
        CostTable("any", {**A100.seconds_per_item, "rewrite": cost}, "made up")


def test_every_stage_has_a_cost_and_no_other_has() -> None:
    costs = {s: c for s, c in A100.seconds_per_item.items() if s != "rewrite"} | {"sing": 1.0}
    with pytest.raises(ConfigurationError, match="rewrite, sing"):
        CostTable("any", costs, "made up")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds_per_item": 1}'])
def test_what_is_not_a_table_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a cost table"):
        CostTable.from_json(text)


def test_a_file_that_is_not_a_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    file.write_text("seconds", "utf-8")
    with pytest.raises(ConfigurationError, match=f"{file}: not a cost table"):
        read_costs(file)


@pytest.mark.parametrize(("captions", "devices"), [(-1, 1), (1, 0)])
def test_no_hours_without_captions_or_devices(captions: int, devices: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        projected_hours(A100, captions, devices)
