"""The laws of the cost table: what it accepts, how it travels, what it projects."""

import math
from pathlib import Path

import pytest

from imgdiffd.bundles.bundle import SHIPPED
from imgdiffd.errors import ConfigurationError
from imgdiffd.pipeline import CAPTION_STAGES, OPTIONAL_STAGES, Stage
from imgdiffd.schedulers.cost_table import (
    A100,
    CAPTIONS,
    EXPECTED,
    ITEMS_PER_CAPTION,
    CostTable,
    first_guess_s,
    guessed_seconds_per_caption,
    projected_hours,
)
from imgdiffd.schedulers.simulation.command import read_costs


def test_a_table_survives_json() -> None:
    assert CostTable.from_json(A100.to_json()) == A100


def test_the_stages_are_the_pipelines_without_the_optional_ones() -> None:
    assert [*ITEMS_PER_CAPTION] == [stage.value for stage in CAPTION_STAGES if stage not in OPTIONAL_STAGES]


@pytest.mark.parametrize(("bundle", "hours"), [("paper", 89.2), ("small", 86.7), ("compact", 84.7)])
def test_the_papers_captions_take_85_to_89_hours_on_four_cards(bundle: str, hours: float) -> None:
    assert projected_hours(EXPECTED[bundle], CAPTIONS, 4) == pytest.approx(hours, abs=0.05)


def test_every_shipped_bundle_has_a_table_and_others_the_dearest() -> None:
    assert {*EXPECTED} == {*SHIPPED}
    assert first_guess_s("small")[Stage.DESCRIBE] < first_guess_s("paper")[Stage.DESCRIBE]
    assert first_guess_s("mine") == first_guess_s("paper")


def test_the_docs_show_every_expected_cost_with_its_source() -> None:
    lines = (Path(__file__).parents[3] / "docs" / "measurements.md").read_text("utf-8").splitlines()
    rows = {row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]] for row in lines if "|" in row}
    for stage in ITEMS_PER_CAPTION:
        _, *costs, source = rows[stage]
        assert [float(cost) for cost in costs] == [table.seconds_per_item[stage] for table in EXPECTED.values()]
        assert source


def test_first_guesses_are_the_table_and_cover_every_stage() -> None:
    guesses_s = first_guess_s("paper")
    assert {*guesses_s} == {*Stage}
    assert {stage: guesses_s[Stage(stage)] for stage in A100.seconds_per_item} == A100.seconds_per_item
    per_caption = sum(map(guessed_seconds_per_caption, map(Stage, ITEMS_PER_CAPTION)))
    assert per_caption / 3600 == pytest.approx(projected_hours(A100, 1, 1))


def test_hours_weigh_each_stage_by_the_funnel() -> None:
    table = CostTable("any", dict.fromkeys(ITEMS_PER_CAPTION, 0.0) | {"locate": 3600.0}, "made up")
    assert projected_hours(table, 118_000, 1) == pytest.approx(38_533)


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


def test_simulate_takes_the_costs_of_a_bundle_by_its_name() -> None:
    assert read_costs(None) == read_costs(Path("paper")) == EXPECTED["paper"]
    assert read_costs(Path("small")) == EXPECTED["small"]


@pytest.mark.parametrize(("captions", "devices"), [(-1, 1), (1, 0)])
def test_no_hours_without_captions_or_devices(captions: int, devices: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        projected_hours(A100, captions, devices)
