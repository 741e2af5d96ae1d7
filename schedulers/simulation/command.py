"""`imgdiffd simulate`: a scenario from options, every policy's run, tables to read and charts to look at."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from imgdiffd.errors import ConfigurationError, reason_of
from imgdiffd.schedulers.cost_table import A100, CAPTIONS, EXPECTED, CostTable
from imgdiffd.schedulers.simulation.chart import planning_chart, utilisation_chart
from imgdiffd.schedulers.simulation.comparators import run_comparators
from imgdiffd.schedulers.simulation.outcome import Outcome
from imgdiffd.schedulers.simulation.report import as_json, as_text, beside_the_paper, room
from imgdiffd.schedulers.simulation.scenario import (
    ABORT_AT,
    BatchCosts,
    Fates,
    Scenario,
    SimulatedDevice,
    equal_devices,
    mixed_devices,
)
from imgdiffd.schedulers.simulation.stealing_run import run_stealing

PLACEMENTS: dict[str, Callable[[int], tuple[SimulatedDevice, ...]]] = {"equal": equal_devices, "mixed": mixed_devices}
PLANNED = (1, 2, 4, 8, 16)  # devices on the planning chart
_PLANNED_CAPTIONS = 5_000  # for each of them; the hours are scaled up, so start and end weigh more than they would


@dataclass(frozen=True)
class Options:
    """What the command line says. `slow_card` is the last card's speed as a share of the others'.

    `caught` is the share of the pairs that fail the similarity gate which early abort gives up; 0 without it.
    """

    captions: int = CAPTIONS
    devices: int = 4
    placement: str = "equal"
    slow_card: float = 1.0
    failure_rate: float = 0.0
    costs: Path | None = None
    seed: int = 1
    out: Path = Path("simulation")
    caught: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigurationError for what cannot be simulated."""
        if not 0 <= self.caught <= 1:
            raise ConfigurationError(
                f"early abort cannot give up {self.caught} of the pairs that fail",
                hint="give --caught from 0 to 1; `imgdiffd previews` shows what a calibration says",
            )
        if not 0 < self.slow_card <= 1 or not 0 <= self.failure_rate < 0.5:
            raise ConfigurationError(
                f"cannot simulate a card at {self.slow_card} of its speed and a failure rate of {self.failure_rate}",
                hint="give --slow-card above 0 and at most 1, and --failure-rate from 0 to below 0.5",
            )


def read_costs(path: Path | None) -> CostTable:
    """The table in a JSON file, or what is expected of a bundle; ConfigurationError names a file that is not one."""
    if path is None or str(path) in EXPECTED:
        return A100 if path is None else EXPECTED[str(path)]
    try:
        return CostTable.from_json(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {reason_of(error)}",
            hint=f"name a cost table's JSON file, or one of the bundles {', '.join(EXPECTED)}",
        ) from error


def scenario_of(options: Options, *, devices: int | None = None, captions: int | None = None) -> Scenario:
    """The scenario that the options describe, or the same with other numbers of devices or captions."""
    cards = PLACEMENTS[options.placement](devices or options.devices)
    cards = (*cards[:-1], replace(cards[-1], speed=options.slow_card))
    return Scenario(
        cards,
        captions=captions or options.captions,
        table=read_costs(options.costs),
        failure_rate=options.failure_rate,
        seed=options.seed,
        caught=options.caught,
    )


def run_policies(scenario: Scenario) -> tuple[Outcome, ...]:
    """The scenario under our scheduler, then under each of the comparators."""
    fates = Fates(scenario.captions, scenario.seed, scenario.caught)
    costs = BatchCosts(scenario, fates)
    return (run_stealing(scenario, costs), *run_comparators(scenario, fates, costs))


def simulate(options: Options, show: Callable[[str], None]) -> None:
    """Run everything, show the tables, and leave two charts and the figures in the out folder.

    Raises ConfigurationError, before anything is run, where the folder cannot be used.
    """
    _make_folder(options.out)
    scenario = scenario_of(options)
    words = f"{options.captions:,} captions on {options.devices} devices, {_conditions(options)}"
    show(f"{words}; seed {options.seed}; costs: {scenario.table.device} ({scenario.table.source})")
    outcomes = run_policies(scenario)
    least = "the least possible, every batch full and no card idle but for want of a model"
    show(f"{least}: {outcomes[0].bound_s / 3600:.2f} h\n")
    show(as_text(outcomes))
    show(f"\n{room(outcomes)}")
    show(beside_the_paper(outcomes[0], options.captions, options.devices, scenario.table.device))
    if options.caught:
        show(_beside_full_painting(scenario, outcomes[0]))
    hours, bounds = _planned_hours(options)
    ours = hours[outcomes[0].policy]
    rows = "\n".join(f"{count:>8} {'device ' if count == 1 else 'devices'} {ours[count]:>10.1f} h" for count in PLANNED)
    show(f"\nplanning ahead, {outcomes[0].policy}:\n{rows}")
    (options.out / "utilisation.svg").write_text(utilisation_chart(outcomes, words), "utf-8")
    planned = f"Hours for {options.captions:,} captions, {_conditions(options)}"
    (options.out / "planning.svg").write_text(planning_chart(hours, bounds, planned), "utf-8")
    (options.out / "outcomes.json").write_text(as_json(outcomes), "utf-8")
    show(f"\n{options.out}: utilisation.svg, planning.svg, outcomes.json")


def _beside_full_painting(scenario: Scenario, ours: Outcome) -> str:
    """Our hours with early abort, beside those of the same run without."""
    full = replace(scenario, caught=0.0)
    without = run_stealing(full, BatchCosts(full, Fates(full.captions, full.seed)))
    given_up = Fates(scenario.captions, scenario.seed, scenario.caught).given_up
    shares = [ABORT_AT, sum(given_up) / len(given_up), 1 - ours.seconds / without.seconds]
    at, given, saved = (f"{100 * share:.1f} %" for share in shares)
    return (
        f"early abort after {at} of the steps gives up {given} of the pairs: "
        f"{ours.hours:.1f} h instead of {without.hours:.1f} h, {saved} less"
    )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigurationError(
            f"{out}: the charts cannot be written there: {reason_of(error)}", hint="give another folder with --out"
        ) from error


def _conditions(options: Options) -> str:
    words = f"{options.placement} placement"
    words += f", early abort of {100 * options.caught:.0f} % of the pairs that fail" if options.caught else ""
    words += f", the last card at {100 * options.slow_card:.0f} %" if options.slow_card < 1 else ""
    return words + (f", {100 * options.failure_rate:g} % of batches kill their worker" if options.failure_rate else "")


def _planned_hours(options: Options) -> tuple[dict[str, dict[int, float]], dict[int, float]]:
    """By policy and number of devices; and the least possible, by number of devices."""
    captions = min(options.captions, _PLANNED_CAPTIONS)
    scale = options.captions / captions
    hours: dict[str, dict[int, float]] = {}
    bounds: dict[int, float] = {}
    for count in PLANNED:
        for outcome in run_policies(scenario_of(options, devices=count, captions=captions)):
            hours.setdefault(outcome.policy, {})[count] = outcome.hours * scale
            bounds[count] = outcome.bound_s / 3600 * scale
    return hours, bounds
