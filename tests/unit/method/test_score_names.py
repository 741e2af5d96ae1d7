"""Names of scores and bounds on them."""

import pytest

from imgdiffd.errors import InputError
from imgdiffd.method.score_names import SCORE_NAMES, all_scores, bounds_of


def test_bounds_are_read_from_names_and_numbers() -> None:
    assert bounds_of(["pair.clip_image_cosine=0.95", " clip_text_cosine = -1e-3"]) == {
        "pair.clip_image_cosine": 0.95,
        "clip_text_cosine": -0.001,
    }
    assert bounds_of([]) == {}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["clip_text_cosine"], "is not a bound (write the score's name, = and a number"),
        (["clip_text_cosin=1"], "there is no score 'clip_text_cosin' (did you mean clip_text_cosine?)"),
        (["zzz=1"], "(the scores are: pair.clip_image_cosine, "),
        (["clip_text_cosine=nan"], "the bound on clip_text_cosine is not a number: 'nan'"),
        (["clip_text_cosine=1_0"], "is not a number: '1_0'"),
        (["clip_text_cosine=٣"], "is not a number"),
        (["clip_text_cosine="], "is not a number: ''"),
        (["clip_text_cosine=1", "clip_text_cosine=2"], "has two such bounds (give one)"),
    ],
)
def test_what_is_no_bound_is_refused_with_the_way_to_write_one(texts: list[str], told: str) -> None:
    with pytest.raises(InputError) as refused:
        bounds_of(texts)
    assert told in str(refused.value)


def test_scores_of_the_pair_are_told_from_those_of_a_part() -> None:
    scores = all_scores({"clip_image_cosine": 0.9}, {"clip_image_cosine": 0.2})
    assert scores == {"pair.clip_image_cosine": 0.9, "clip_image_cosine": 0.2}
    assert set(scores) <= set(SCORE_NAMES)
