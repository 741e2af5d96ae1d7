"""The laws of the simulation: what our scheduler must reach in it, and that all policies do the same honest work."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from imgdiffd.cli.main import main
from imgdiffd.errors import ConfigurationError
from imgdiffd.pipeline import STAGES, Role, Stage
from imgdiffd.schedulers.cost_table import A100, BOXES, CAPTIONS, SAMPLES, SIMILAR, CostTable
from imgdiffd.schedulers.simulation.chart import planning_chart, utilisation_chart
from imgdiffd.schedulers.simulation.command import Options, run_policies, scenario_of, simulate
from imgdiffd.schedulers.simulation.outcome import Outcome
from imgdiffd.schedulers.simulation.scenario import (
    SIMULATED,
    BatchCosts,
    Fates,
    Scenario,
    equal_devices,
    mixed_devices,
)
from imgdiffd.schedulers.simulation.stealing_run import run_stealing
from imgdiffd.schedulers.stealing import LEAVING_S
from tests.benchmarks.report import Report

REDUCED = 2500  # captions; the command's default is the paper's 118,000
KINDS = {
    "equal": Options(REDUCED),
    "mixed": Options(REDUCED, placement="mixed"),
    "straggler": Options(REDUCED, slow_card=0.6),
    "mixed straggler": Options(REDUCED, placement="mixed", slow_card=0.6),
}


@cache
def played(kind: str) -> tuple[Outcome, ...]:
    return run_policies(scenario_of(KINDS[kind]))


def items(outcome: Outcome, stage: Stage) -> int:
    return sum(size * count for size, count in outcome.batch_sizes.get(stage, {}).items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_within_3_percent_of_the_least_possible(kind: str) -> None:
    ours = played(kind)[0]
    assert min(ours.utilisation.values()) >= 0.97
    assert ours.over_bound <= 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_policy_is_faster(kind: str) -> None:
    ours, *others = played(kind)
    assert all(ours.seconds < other.seconds for other in others)
    assert all(outcome.over_bound > 0 for outcome in (ours, *others))


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_job_ends_within_3_percent_of_the_least_too(kind: str) -> None:
    ours, *others = run_policies(scenario_of(replace(KINDS[kind], captions=256)))
    assert ours.over_bound <= 0.03
    assert all(ours.seconds < 1.01 * other.seconds for other in others)


@pytest.mark.parametrize("kind", ["straggler", "mixed straggler"])
def test_a_straggler_costs_the_others_10_percent_more(kind: str) -> None:
    ours, *others = played(kind)
    for other in others[:2]:
        assert other.seconds >= 1.1 * ours.seconds, other.policy


def test_a_mixed_placement_costs_pools_10_percent_more() -> None:
    ours, split, pools, fifo = played("mixed")
    assert pools.seconds >= 1.1 * ours.seconds
    for other in (split, fifo):  # what they are over the least possible is all that any policy could gain on them
        assert ours.over_bound < other.over_bound < 0.06


def test_cheap_painting_costs_split_and_pools_10_percent_more() -> None:
    cheap = replace(A100, seconds_per_item={**A100.seconds_per_item, "generate": 1.55})
    ours, *others = run_policies(Scenario(mixed_devices(4), captions=REDUCED, table=cheap))
    assert ours.over_bound <= 0.03
    assert all(other.seconds > 1.1 * ours.seconds for other in others[:2])
    assert others[2].seconds > 1.02 * ours.seconds


@pytest.mark.parametrize("kind", KINDS)
def test_every_policy_does_the_same_work(kind: str) -> None:
    ours, *others = played(kind)
    assert items(ours, Stage.GENERATE) == REDUCED
    for stage in SIMULATED:
        assert {items(other, stage) for other in others} == {items(ours, stage)}


def test_every_policy_keeps_to_the_bound_of_open_captions() -> None:
    assert {outcome.most_open <= 512 for outcome in played("mixed")} == {True}


def test_fewer_painted_pairs_lie_about_than_with_a_central_queue() -> None:
    ours, *others = played("mixed")
    assert 0 < ours.most_painted * 4 < others[2].most_painted <= 512


def test_the_outcome_depends_on_the_seed_alone() -> None:
    one, again, other = (run_policies(scenario_of(Options(300, seed=seed, failure_rate=0.01))) for seed in (1, 1, 2))
    assert one == again
    assert one[0].seconds != other[0].seconds


def test_workers_that_die_lose_time_and_no_caption() -> None:
    calm, rough = (run_policies(scenario_of(Options(600, failure_rate=rate))) for rate in (0.0, 0.02))
    for before, after in zip(calm, rough, strict=True):
        assert after.deaths > 0
        assert after.seconds > before.seconds
        assert items(after, Stage.GENERATE) >= 600
    assert items(rough[0], Stage.RENDER) == items(calm[0], Stage.RENDER)


def test_fates_follow_the_papers_funnel() -> None:
    fates = Fates(CAPTIONS, 1)
    assert sum(fates.similar) == pytest.approx(SIMILAR, rel=0.02)
    assert sum(fates.samples) == pytest.approx(SAMPLES, rel=0.03)
    assert max(fates.boxes) <= 5


def test_pairs_given_up_are_a_share_of_those_that_fail_and_few_others() -> None:
    full, fates = Fates(CAPTIONS, 1), Fates(CAPTIONS, 1, caught=0.5)
    assert (fates.similar, fates.boxes, fates.samples) == (full.similar, full.boxes, full.samples)
    assert not any(full.given_up)
    failing = [up for up, similar in zip(fates.given_up, fates.similar, strict=True) if not similar]
    kept = [up for up, similar in zip(fates.given_up, fates.similar, strict=True) if similar]
    assert sum(failing) / len(failing) == pytest.approx(0.97 * 0.5, rel=0.02)
    assert 0 < sum(kept) / len(kept) < 0.007


def test_early_abort_costs_what_was_painted_and_saves_the_rest() -> None:
    plain = Scenario(equal_devices(2), captions=REDUCED)
    abort = replace(plain, caught=0.5)
    fates = Fates(REDUCED, 1, caught=0.5)
    ours = run_stealing(abort, BatchCosts(abort, fates))
    without = run_stealing(plain, BatchCosts(plain, Fates(REDUCED, 1)))
    painted = 1 - 0.6 * sum(fates.given_up) / REDUCED
    assert ours.over_bound < 0.03
    assert ours.seconds / without.seconds == pytest.approx(painted, abs=0.02)
    assert items(ours, Stage.GENERATE) == items(without, Stage.GENERATE) == REDUCED
    assert items(ours, Stage.COMPARE) == REDUCED - sum(fates.given_up)


def test_the_command_prints_hours_with_and_without_abort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["simulate", "--captions", "60", "--devices", "2", "--out", str(tmp_path), "--abort", "--caught", "0.5"])
    shown = capsys.readouterr().out
    assert "early abort of 50 % of the pairs that fail" in shown
    assert re.search(r"gives up \d\d\.\d % of the pairs: \d\.\d h instead of \d\.\d h, \d+\.\d % less", shown)


def costs_of(captions: int = 2000) -> BatchCosts:
    return BatchCosts(Scenario(equal_devices(1), captions=captions), Fates(captions, 1))


def test_batch_costs_a_fixed_part_and_a_part_for_each_item() -> None:
    costs = costs_of()
    one, two, three = (costs.seconds(Stage.GENERATE, range(count), 0, 1.0) for count in (1, 2, 3))
    assert three - two == pytest.approx(two - one)
    assert 0 < two - one < one


def test_full_batch_costs_what_the_table_says_on_average() -> None:
    for stage in (Stage.REWRITE, Stage.GENERATE, Stage.LOCATE):
        limit = STAGES[stage].batch_limit
        expected = A100.seconds_per_item[stage] * limit
        assert costs_of().seconds(stage, range(limit), 0, 1.0) == pytest.approx(expected)


def test_slow_cards_take_longer_and_moved_images_are_reread() -> None:
    costs = costs_of()
    at_home = costs.seconds(Stage.COMPARE, range(8), 0, 1.0)
    assert costs.seconds(Stage.COMPARE, range(8), 0, 0.5) == pytest.approx(2 * at_home)
    assert costs.seconds(Stage.COMPARE, range(8), 3, 1.0) == pytest.approx(at_home + 3 * LEAVING_S)


def test_bound_counts_a_slow_card_as_a_part_of_one() -> None:
    cards = equal_devices(2)
    slow = (cards[0], replace(cards[1], speed=0.6))
    assert costs_of().bound_s(slow) == pytest.approx(costs_of().bound_s(cards) * 2 / 1.6)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 16])
def test_mixed_cards_hold_every_model_and_half_of_them_caption(count: int) -> None:
    cards = mixed_devices(count)
    assert frozenset().union(*(card.roles for card in cards)) == frozenset(Role)
    assert sum(Role.CAPTIONER in card.roles for card in cards) == max(1, count // 2)
    assert all(card.holds(Stage.GENERATE) for card in cards)


def test_the_bound_counts_only_cards_that_hold_the_models() -> None:
    table = replace(A100, seconds_per_item={**dict.fromkeys(A100.seconds_per_item, 0.0), "describe": 3600.0})
    scenario = Scenario(mixed_devices(4), captions=2000, table=table)
    costs = BatchCosts(scenario, Fates(2000, 1))
    every = costs.bound_s(equal_devices(4))
    assert costs.bound_s(scenario.devices) == pytest.approx(2 * every)  # two of the four cards caption
    painting = replace(table, seconds_per_item={**table.seconds_per_item, "generate": 3600.0})
    both = BatchCosts(replace(scenario, table=painting), Fates(2000, 1))
    assert both.bound_s(scenario.devices) == pytest.approx(both.bound_s(equal_devices(4)))


def test_single_card_is_as_good_as_any_policy_can_be() -> None:
    scenario = Scenario(equal_devices(1), captions=400)
    assert run_stealing(scenario, BatchCosts(scenario, Fates(400, 1))).over_bound < 0.03


def words(svg: str) -> Sequence[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def test_charts_are_svg_that_names_every_policy() -> None:
    outcomes = played("mixed")
    for svg in (
        utilisation_chart(outcomes, "a < b"),
        planning_chart({one.policy: {1: one.hours, 2: one.hours / 2} for one in outcomes}, {1: 1.0, 2: 0.5}, "a < b"),
    ):
        assert {one.policy for one in outcomes} <= set(words(svg))
        assert "a < b" in words(svg)


def test_bars_are_as_high_as_the_utilisation_says() -> None:
    idle = replace(played("equal")[0], busy_s={"cuda:0": played("equal")[0].seconds / 2})
    bars = [e for e in ET.fromstring(utilisation_chart([idle], "")).iter() if e.get("fill") == "#0072b2"]
    full = replace(idle, busy_s={"cuda:0": idle.seconds})
    whole = [e for e in ET.fromstring(utilisation_chart([full], "")).iter() if e.get("fill") == "#0072b2"]
    assert float(bars[0].get("height", 0)) == pytest.approx(float(whole[0].get("height", 0)) / 2, abs=0.1)


def test_the_command_prints_every_policy_and_writes_charts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "costs.json"
    table.write_text(replace(A100, device="my card").to_json())
    out = tmp_path / "out"
    main(["simulate", "--captions", "60", "--devices", "2", "--costs", str(table), "--out", str(out)])
    shown = capsys.readouterr().out
    for expected in ("my card", "work stealing", "static split", "pool per stage", "central FIFO", "16 devices"):
        assert expected in shown
    assert "no policy can be faster than it by more; work stealing is by" in shown
    assert re.search(r"60 captions on 2 x my card: .* days; the paper, 118,000 on 4 x A100: 156.0 h, 6.50 days", shown)
    assert {path.name for path in out.iterdir()} == {"utilisation.svg", "planning.svg", "outcomes.json"}
    assert len(json.loads((out / "outcomes.json").read_text())) == 4


def test_simulate_uses_the_costs_that_the_benchmarks_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = CostTable("one H200", dict.fromkeys(A100.seconds_per_item, 0.5), "measured")
    (table,) = Report("one H200", [], [], {"paper": measured}, [], []).write(tmp_path / "bench-gpu.json")
    options = Options(captions=100, devices=1, costs=table, out=tmp_path / "out")
    assert scenario_of(options).table == measured
    simulate(options, print)
    shown = capsys.readouterr().out
    assert "costs: one H200 (measured)" in shown
    fates = Fates(100, 1)
    reached = 3 * 100 + sum(fates.similar) + sum(map(bool, fates.boxes))
    weights = sum(fates.boxes) * SIMILAR / BOXES - sum(map(bool, fates.boxes)) + 2 * sum(fates.samples)
    least_h = 0.5 * (reached + weights) / 3600
    assert json.loads((tmp_path / "out" / "outcomes.json").read_text())[0]["bound_hours"] == pytest.approx(least_h)


@pytest.mark.parametrize("wrong", [{"slow_card": 0.0}, {"slow_card": 1.5}, {"failure_rate": 0.5}, {"caught": 1.1}])
def test_what_cannot_be_simulated_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="cannot"):
        Options(**wrong)  # type: ignore[arg-type]


def test_unreadable_cost_table_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="missing"):
        scenario_of(Options(costs=tmp_path / "missing.json"))
