"""What a bound yields is what the profile with that bound yields."""

import re
from operator import attrgetter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from imgdiffd.choosing.bounds import SCORES, BoundChoice, ScoreBounds, score_bounds
from imgdiffd.choosing.course import SAMPLED, WAITS
from imgdiffd.choosing.drawing import WIDTH, draw
from imgdiffd.choosing.outlook import outlook
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Bound
from tests.unit.choosing.drawn import case, columns_of


@pytest.mark.parametrize("seed", range(2))
def test_a_bound_yields_what_the_profile_with_it_yields(seed: int) -> None:
    runs, profile = case(seed)
    columns = columns_of(runs)

    def own(group: int) -> Profile:
        return runs[group - 1].profile

    for bounds in (each for name in SCORES for each in score_bounds(columns, name, profile, own)):
        section, _, key = bounds.key.partition(".")
        assert bounds.own.bound == attrgetter(bounds.key)(profile).value
        for choice in bounds.choices:
            bound = Bound(value=choice.bound, closed=attrgetter(bounds.key)(profile).closed)
            moved = getattr(profile, section).model_copy(update={key: bound})
            found = outlook(columns, profile.model_copy(update={section: moved}), own)
            assert choice.samples == int((found.regions["state"] == SAMPLED).sum())
            early = set((found.state == WAITS).nonzero()[0].tolist()) - set(found.regions["item"].tolist())
            assert choice.open == len(early) + int((found.regions["state"] == WAITS).sum())


def bounds_with(marks: dict[str, float], own: float = 0.9) -> ScoreBounds:
    edges = tuple(round(0.8 + 0.01 * step, 2) for step in range(21))
    choices = tuple(BoundChoice(edge, 100 - step, 50 - step, 0) for step, edge in enumerate(edges))
    counts = tuple(range(20))
    return ScoreBounds("pair.above", "pairs", True, edges, counts, 7, choices, BoundChoice(own, 90, 40, 0), marks)


MARKS = [
    {"default": 0.9, "paper": 0.9, "scripts": 0.9, "data-juicer": 0.9, "mini": 0.368},
    {"default": 0.98, "paper": 0.98, "scripts": 0.985, "data-juicer": 0.99, "a profile of my own": 0.993},
    {"a" * 60: 0.81, "b" * 60: 0.99, "<&>": 0.995, "mine": 1.2},
]


@pytest.mark.parametrize("marks", MARKS)
def test_labels_of_the_drawing_stay_apart_and_inside(marks: dict[str, float]) -> None:
    drawn = ElementTree.fromstring(draw("Scores <of> many", [bounds_with(marks), bounds_with({})]))
    places: list[tuple[float, float, float, str]] = []
    for text in drawn.iter("{http://www.w3.org/2000/svg}text"):
        words, size = text.text or "", 15 if text.get("class") == "title" else 12
        width, x = 0.55 * size * len(words), float(text.get("x", "0"))
        left = {"start": x, "middle": x - width / 2, "end": x - width}[text.get("text-anchor", "start")]
        assert left >= 0
        assert left + width <= WIDTH + 1
        y = float(text.get("y", "0"))
        for other_left, other_right, other_y, said in places:
            assert abs(y - other_y) >= 12 or left > other_right or left + width < other_left, (words, said)
        places.append((left, left + width, y, words))
    assert len(places) > 20


def test_drawing_has_colours_for_light_and_dark_pages(tmp_path: Path) -> None:
    drawn = draw("Scores", [bounds_with(MARKS[0])])
    light, _, dark = drawn.partition("@media (prefers-color-scheme: dark)")
    names = set(re.findall(r"--(\w+): #", light))
    assert (
        names == set(re.findall(r"--(\w+): #", dark.partition("text {")[0])) == set(re.findall(r"var\(--(\w+)\)", dark))
    )
