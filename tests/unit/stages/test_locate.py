from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from imgdiffd.errors import StageError
from imgdiffd.method.filters import choose_regions
from imgdiffd.method.messages import Box, LocateInput, LocateOutput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.models.loading import Models
from imgdiffd.stages.images import Images
from imgdiffd.stages.locate import locate
from imgdiffd.testing.models import FakeBlip, FakeClip, FakeSegmenter, canvas, fake_models

PROFILE = load_profile("default")
W, H = 60, 40
OBJECT = (10, 10, 30, 30)  # red in image 1, blue in image 2
SAME = (40, 10, 55, 30)  # white in both
NOUN1, NOUN2 = "blip_itc_cosine.noun1", "blip_itc_cosine.noun2"
CROPS = "clip_image_cosine"


class Scene:
    """A pair whose only difference is OBJECT, and fakes that find `boxes1` and `boxes2` in it."""

    def __init__(self, root: Path) -> None:
        self.images = Images(root, torch.device("cpu"))
        self.images.write({"1.png": canvas("green", W, H, ("red", OBJECT), ("white", SAME))})
        self.images.write({"2.png": canvas("green", W, H, ("blue", OBJECT), ("white", SAME))})
        self.clip, self.blip = FakeClip(), FakeBlip()

    def models(self, boxes1: Sequence[Box], boxes2: Sequence[Box]) -> Models:
        return fake_models(segmenter=FakeSegmenter(boxes1, boxes2), clip=self.clip, blip=self.blip)

    def locate(
        self,
        boxes1: Sequence[Box],
        boxes2: Sequence[Box],
        nouns1: tuple[str, ...] = ("red",),
        nouns2: tuple[str, ...] = ("blue",),
        profile: Profile = PROFILE,
    ) -> LocateOutput:
        entry = LocateInput(1, "1.png", "2.png", nouns1, nouns2)
        return locate(self.models(boxes1, boxes2), profile, [entry], self.images)[0]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_box_found_in_image_2_is_matched_with_caption_2(scene: Scene) -> None:
    output = scene.locate([], [OBJECT])
    (candidate,) = output.candidates
    assert candidate.image == 2
    assert set(scene.blip.asked) == {("red", OBJECT, "red"), ("blue", OBJECT, "blue")}
    assert candidate.scores == {CROPS: 0.0, NOUN1: 0.9, NOUN2: 0.9}


def test_box_scores_the_same_whichever_image_it_was_found_in(scene: Scene) -> None:
    first, second = scene.locate([OBJECT], [OBJECT]).candidates
    assert (first.image, second.image) == (1, 2)
    assert first.scores == second.scores
    assert first.scores is not second.scores
    assert scene.clip.crops.count(OBJECT) == 2  # once an image, not once a candidate


def test_nouns_of_the_wrong_side_do_not_match(scene: Scene) -> None:
    (candidate,) = scene.locate([], [OBJECT], nouns1=("blue",), nouns2=("red",)).candidates
    assert (candidate.scores[NOUN1], candidate.scores[NOUN2]) == (0.1, 0.1)


def test_best_of_several_nouns_counts(scene: Scene) -> None:
    (candidate,) = scene.locate([OBJECT], [], nouns1=("dog", "red", "nothing"), nouns2=("nothing",)).candidates
    assert candidate.scores == {CROPS: 0.0, NOUN1: 0.9}  # what is not a number is not stored


def test_side_without_nouns_has_no_score(scene: Scene) -> None:
    (candidate,) = scene.locate([OBJECT], [], nouns1=()).candidates
    assert candidate.scores == {CROPS: 0.0, NOUN2: 0.9}


NEEDED = PROFILE.model_copy(update={"scores": "needed"})


def test_a_box_that_clip_refused_has_noun_scores_all_the_same(scene: Scene) -> None:
    changed, unchanged = scene.locate([OBJECT, SAME], []).candidates
    assert unchanged.scores == {CROPS: pytest.approx(1.0), NOUN1: 0.1, NOUN2: 0.1}
    assert changed.scores == {CROPS: 0.0, NOUN1: 0.9, NOUN2: 0.9}


def test_only_needed_scores_leave_out_what_clip_refused(scene: Scene) -> None:
    changed, unchanged = scene.locate([OBJECT, SAME], [], profile=NEEDED).candidates
    assert unchanged.scores == {CROPS: pytest.approx(1.0)}
    assert {box for _, box, _ in scene.blip.asked} == {OBJECT}
    assert NOUN1 in changed.scores


def test_what_is_rejected_shares_no_pass_with_what_is_not(scene: Scene) -> None:
    """The last digit of a score depends on its pass: rejects must not change the scores of what is kept."""
    tiny = (0, 0, 2, 2)
    scene.locate([tiny, SAME, OBJECT], [])
    assert scene.clip.calls == [[SAME, OBJECT], [SAME, OBJECT], [tiny], [tiny]]
    assert scene.blip.calls == [[OBJECT], [OBJECT], [tiny, SAME], [tiny, SAME]]


@pytest.mark.parametrize("profile", [PROFILE, NEEDED])
def test_all_scores_change_no_verdict(scene: Scene, profile: Profile) -> None:
    boxes = [(0, 0, 2, 2), SAME, OBJECT, (5, 5, 5, 20), (11, 10, 30, 30)]
    choice = choose_regions(scene.locate(boxes, [OBJECT], profile=profile).candidates, profile.locate, W, H)
    assert [verdict.reason for verdict in choice.verdicts] == [
        "box_too_small",
        "crops_too_similar",
        None,
        "box_degenerate",
        "overlaps_more_different_box",
        "overlaps_more_different_box",
    ]


@pytest.mark.parametrize(
    "degenerate",
    [(5, 5, 5, 20), (W + 3, 5, W + 9, 20), (-9, 5, -1, 20), (20, 5, 10, 30)],
    ids=["no width", "right of the canvas", "left of it", "inverted"],
)
def test_degenerate_box_never_drops_its_pair(scene: Scene, degenerate: Box) -> None:
    bad, good = scene.locate([degenerate, OBJECT], []).candidates
    assert bad.scores == {}
    choice = choose_regions((bad, good), PROFILE.locate, W, H)
    assert [verdict.reason for verdict in choice.verdicts] == ["box_degenerate", None]
    assert [region.box for region in choice.regions] == [OBJECT]


def test_image_without_boxes_is_no_error(scene: Scene) -> None:
    assert scene.locate([], []).candidates == ()
    assert scene.clip.crops == []


def test_only_needed_scores_leave_out_boxes_of_a_wrong_size(scene: Scene) -> None:
    tiny = (0, 0, 2, 2)  # 4 of 2,400 pixels: under 1/400
    (candidate,) = scene.locate([tiny], [], profile=NEEDED).candidates
    assert (candidate.box, candidate.scores, scene.clip.crops) == (tiny, {}, [])
    later = NEEDED.locate.model_copy(update={"area_test": "last"})
    (candidate,) = scene.locate([tiny], [], profile=NEEDED.model_copy(update={"locate": later})).candidates
    assert candidate.scores == {CROPS: pytest.approx(1.0)}  # until its size is judged, it needs them


def test_boxes_are_clamped_to_the_canvas(scene: Scene) -> None:
    (candidate,) = scene.locate([(-5, -3, W + 7, 30)], []).candidates
    assert candidate.box == (0, 0, W, 30)


def test_segmenter_sees_both_images_of_every_pair_in_order(scene: Scene) -> None:
    segmenter = FakeSegmenter([OBJECT], [], [], [SAME])
    models = fake_models(segmenter=segmenter, clip=scene.clip, blip=scene.blip)
    entries = [LocateInput(1, "1.png", "2.png", ("red",), ()), LocateInput(2, "2.png", "1.png", ("blue",), ())]
    first, second = locate(models, PROFILE, entries, scene.images)
    assert [(c.image, c.box) for c in first.candidates] == [(1, OBJECT)]
    assert [(c.image, c.box) for c in second.candidates] == [(2, SAME)]
    wanted = [scene.images.read(name) for name in ("1.png", "2.png", "2.png", "1.png")]
    assert all(a is b for a, b in zip(segmenter.shown, wanted, strict=True))


def test_pair_of_unequal_sizes_is_refused(scene: Scene) -> None:
    scene.images.write({"2.png": canvas("green", W + 8, H)})
    with pytest.raises(StageError, match="60x40 and 68x40"):
        scene.locate([OBJECT], [])
