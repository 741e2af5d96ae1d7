"""The soak's arithmetic: a leak is found, noise is not taken for one, and too short a soak says that it cannot tell."""

import json
import random
from pathlib import Path

import pytest

from tests.soak import __main__ as program
from tests.soak.__main__ import judge
from tests.soak.mill import Mill
from tests.soak.slope import blocks, slope

EACH_S, SECONDS = 5.0, 1800.0
TIMES = [number * EACH_S for number in range(int(SECONDS / EACH_S))]


def noisy(per_hour: float, noise: float = 0.3, spike: float = 20.0, seed: int = 1) -> list[float]:
    """A series that grows, with noise, and a batch under way at every tenth reading."""
    rng = random.Random(seed)
    return [
        900 + per_hour * time_s / 3600 + rng.gauss(0, noise) + (spike if rng.random() < 0.1 else 0) for time_s in TIMES
    ]


@pytest.mark.parametrize("per_hour", [-3.0, 0.0, 0.5, 8.0, 80.0])
def test_the_slope_of_a_leak_is_found_among_noise(per_hour: float) -> None:
    line = slope(TIMES, noisy(per_hour))
    assert line.least <= per_hour <= line.most
    assert line.error < 1.0


def test_the_interval_holds_the_true_slope_in_most_soaks() -> None:
    lines = [slope(TIMES, noisy(2.0, seed=seed)) for seed in range(200)]
    assert 180 <= sum(line.least <= 2.0 <= line.most for line in lines) <= 199


def test_a_block_is_its_median_whatever_a_batch_takes_meanwhile() -> None:
    assert blocks([0, 1, 2, 3, 4, 5], [1, 9, 1, 2, 2, 9], 2) == [(1.25, 1), (3.75, 2)]


@pytest.mark.parametrize(
    ("what", "per_hour", "noise", "verdict"),
    [
        ("daemon memory", 0.5, 0.1, "holds"),
        ("daemon memory", 4.0, 0.1, "grows"),
        ("daemon memory", 0.0, 3.0, "cannot tell"),
        ("worker memory, cpu", 3.0, 0.5, "holds"),
        ("worker memory, cpu", 70.0, 8.0, "grows"),
        ("other disk", 3.0, 0.1, "grows"),
        ("write-ahead log", 0.0, 0.0, "holds"),
    ],
)
def test_a_series_is_judged_by_its_limit(what: str, per_hour: float, noise: float, verdict: str) -> None:
    assert judge({"time": TIMES, what: noisy(per_hour, noise, 0.0)})[0].verdict == verdict


def test_one_descriptor_lost_every_ten_minutes_is_found() -> None:
    lost = [float(27 + int(time_s // 600)) for time_s in TIMES]
    assert judge({"time": TIMES, "descriptors of the daemon": lost})[0].verdict == "grows"


def test_growth_during_the_warm_up_alone_is_none() -> None:
    values = [900 + 50 * min(1.0, time_s / 500) for time_s in TIMES]
    assert judge({"time": TIMES, "worker memory, cpu": values})[0].verdict == "holds"


@pytest.mark.parametrize(("per_hour", "noise", "status"), [(0.0, 0.1, 0), (70.0, 0.1, 1), (0.0, 30.0, 2)])
def test_the_exit_status_tells(per_hour: float, noise: float, status: int, tmp_path: Path) -> None:
    readings = tmp_path / "readings.json"
    readings.write_text(json.dumps({"time": TIMES, "worker memory, cpu": noisy(per_hour, noise)}))
    assert program.main(["--readings", str(readings)]) == status


def test_too_few_readings_are_refused() -> None:
    with pytest.raises(ValueError, match="measure longer"):
        judge({"time": [0.0, 5.0], "worker memory, cpu": [900.0, 900.0]})


def test_every_file_of_the_soak_brings_new_captions(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    for _ in range(30):
        mill.drop()
    lines = [line for number in range(1, 31) for line in (tmp_path / f"{number}.txt").read_text().splitlines()]
    assert len(set(lines)) > 0.9 * len(lines)
    assert {path.name for path in tmp_path.iterdir() if "-" in path.name} == {
        "10-copy.txt", "20-copy.txt", "30-copy.txt", "15-bad.json", "30-bad.json",
    }  # fmt: skip
