"""Calibration's rule and the world's truth: pure functions that decide what counts as right."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from imgdiffd.method.profile import load_profile
from imgdiffd.method.removal import Inspection, erased_key, original_key
from imgdiffd.method.removal_messages import Erasure
from imgdiffd.mini.calibrate import open_profile, profile_text
from imgdiffd.mini.erasing import Erased, _judged, _moved
from imgdiffd.mini.figures import Figure
from imgdiffd.mini.fitting import Labelled, fit_bound
from imgdiffd.mini.ground_truth import Edit, change, edit_of, edited, holds_replaced, names, names_both, outside, seen
from imgdiffd.mini.harness import Harness
from imgdiffd.mini.scene_judge import Detection, SceneVerdict

BALL = Detection("ball", "red", (10, 10, 30, 30), 0.9)
HOUSE = Detection("house", "blue", (40, 40, 60, 60), 0.8)
STAR = Detection("star", "red", (10, 10, 30, 30), 0.9)
EDIT = Edit(("ball", "red"), ("star", "red"), (("house", "blue"),))


def test_an_edit_is_one_replaced_object_and_nothing_else() -> None:
    first = "a red ball and a blue house on the grass"
    assert edit_of(first, "a red star and a blue house on the grass") == EDIT
    assert edit_of(first, first) is None
    assert edit_of(first, "a red star and a blue house at night") is None
    assert edit_of(first, "a red star and a blue tree on the grass") is None
    assert edit_of(first, "a red star on the grass") is None
    assert edit_of(first, "something else entirely") is None


def test_an_edit_worked_if_the_new_object_replaced_the_old() -> None:
    assert edited([BALL, HOUSE], [STAR, HOUSE], EDIT)
    assert not edited([BALL, HOUSE], [BALL, HOUSE], EDIT)
    assert not edited([BALL, HOUSE], [STAR, BALL, HOUSE], EDIT)
    assert not edited([BALL, HOUSE], [HOUSE], EDIT)


def test_a_object_counts_as_painted_only_with_noun_and_colour() -> None:
    assert seen([BALL, HOUSE], [("ball", "red"), ("house", "blue")]) == 2
    assert seen([BALL, HOUSE], [("ball", "blue"), ("house", "red")]) == 0


def test_a_box_must_lie_on_the_replaced_object_of_its_own_image() -> None:
    replaced = ((BALL,), (Detection("star", "red", (30, 30, 50, 50), 0.9),))
    assert holds_replaced((11, 11, 30, 30), 1, replaced)
    assert not holds_replaced((11, 11, 30, 30), 2, replaced)
    assert not holds_replaced((11, 11, 30, 30), 1, ((), ()))


def test_a_region_caption_must_name_the_noun_and_no_other() -> None:
    assert names("a red ball", "ball")
    assert not names("a red ball and a house", "ball")
    assert not names("a red balloon", "ball")
    assert names_both("Left shows a red ball, right a red star.", ("ball", "star"))
    assert not names_both("Left shows a red ball.", ("ball", "star"))


def test_change_is_measured_outside_the_grown_boxes_only() -> None:
    first, second = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    second[8:32, 8:32] = 255
    assert change(first, second, outside((64, 64), [BALL.box], grow_px=2)) == 0
    assert change(first, second, outside((64, 64), [], grow_px=2)) > 0


def test_a_bound_keeps_the_most_good_ones_at_that_precision() -> None:
    scores = [
        Labelled(score, good) for score, good in ((0.9, True), (0.8, True), (0.7, True), (0.5, False), (0.4, True))
    ]
    assert fit_bound(scores, keep_above=True, precision=0.98) == pytest.approx(0.6)
    assert fit_bound(scores, keep_above=True, precision=0.75) < 0.4
    turned = [Labelled(-entry.score, entry.good) for entry in scores]
    assert fit_bound(turned, keep_above=False, precision=0.98) == pytest.approx(-0.6)


def test_a_bound_short_of_the_precision_separates_best() -> None:
    scores = [
        Labelled(score, good) for score, good in ((0.9, False), (0.8, True), (0.7, True), (0.5, False), (0.4, False))
    ]
    assert fit_bound(scores, keep_above=True, precision=0.98) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="no good example"):
        fit_bound([Labelled(0.5, False)], keep_above=True)


def test_the_written_profile_says_what_was_fitted_and_reads_back(tmp_path: Path) -> None:
    profile = load_profile("mini")
    path = tmp_path / "mini.toml"
    path.write_text(profile_text(profile, 10, 1))
    assert load_profile(str(path)) == profile
    assert open_profile(profile).locate.noun_above.value < -1


class _Bench:
    """Two images, and a judge that sees `seen[name]` in each."""

    def __init__(self, erased: NDArray[np.uint8], seen: dict[str, list[Detection]]) -> None:
        self._images = {"1.png": np.zeros((64, 64, 3), np.uint8), "1-e0.png": erased}
        self._seen = list(seen.values())
        self.judge = self

    def pixels(self, name: str) -> NDArray[np.uint8]:
        return self._images[name]

    def see(self, images: NDArray[np.uint8]) -> list[SceneVerdict]:
        return [SceneVerdict("grass", tuple(objects)) for objects in self._seen]


ERASURE = Erasure(1, 1, 0, (10, 10, 30, 30), 64, 0.1, "1.png", "1-e0.png", 1)


def test_one_pixel_changed_outside_an_erasure_is_counted() -> None:
    removal = load_profile("mini").removal
    erased = np.zeros((64, 64, 3), np.uint8)
    erased[8:32, 8:32] = 9  # two pixels beyond the box: inside the paste-back's reach
    assert _moved(cast(Harness, _Bench(erased, {})), ERASURE, removal)[0] == 0
    erased[40, 40, 2] = 1
    assert _moved(cast(Harness, _Bench(erased, {})), ERASURE, removal)[0] == 1


@pytest.mark.parametrize(("after", "still_seen"), [([HOUSE], False), ([BALL, HOUSE], True), ([STAR], False)])
def test_erased_object_is_gone_where_its_noun_is_not_seen(after: list[Detection], still_seen: bool) -> None:
    removal = load_profile("mini").removal
    bench = cast(Harness, _Bench(np.zeros((64, 64, 3), np.uint8), {"before": [HOUSE, BALL], "after": after}))
    scores = {original_key(removal.match_kind): 1.0, erased_key(removal.match_kind): 0.0}
    (judged,) = _judged(bench, [Inspection(ERASURE, "a red ball", scores)], removal)
    assert judged == Erased(still_seen, passed=True)


def test_erasure_of_nothing_says_nothing_about_objects() -> None:
    removal = load_profile("mini").removal
    bench = cast(Harness, _Bench(np.zeros((64, 64, 3), np.uint8), {"before": [HOUSE], "after": []}))
    assert list(_judged(bench, [Inspection(ERASURE, "a red ball", {})], removal)) == []


def test_a_figure_without_measurements_meets_no_target() -> None:
    assert not Figure("x", 0, 0, 0.5).met
    assert not Figure("x", 0, 0, 0.5, at_most=True).met
    assert Figure("x", 0, 0).met
    assert Figure("x", 4, 10, 0.5, at_most=True).met
