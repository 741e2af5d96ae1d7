"""Keys of samples: equal wherever equal samples are made, and different for any two others."""

from typing import Any

import pytest

from imgdiffd.method.identity import sample_key, stored_key
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_sections import Abort

PROFILE = load_profile("default")
CAPTION = "a cat on a mat"


def changed(section: str, **given: Any) -> Profile:
    return PROFILE.model_copy(update={section: getattr(PROFILE, section).model_copy(update=given)})


def test_key_of_a_known_sample_is_what_it_always_was() -> None:
    assert sample_key(PROFILE, CAPTION, "replacement", 0) == "74884184dcd91ccf1558a91e59e47af4"


def test_name_and_early_abort_do_not_change_a_key() -> None:
    key = sample_key(PROFILE, CAPTION, "replacement", 0)
    for other in (PROFILE.model_copy(update={"name": "mine"}), changed("generate", abort=Abort(mode="on", below=0.5))):
        assert sample_key(other, CAPTION, "replacement", 0) == key


def test_an_older_database_gives_the_same_key() -> None:
    assert stored_key(PROFILE.model_dump_json(), CAPTION, "removal", 1, 2) == sample_key(
        PROFILE, CAPTION, "removal", 1, 2
    )


def test_the_order_of_words_in_a_profile_changes_no_key() -> None:
    one, other = ({"red": 2.0, "blue": 3.0}, {"blue": 3.0, "red": 2.0})
    assert sample_key(changed("generate", reweight=one), CAPTION, "replacement", 0) == sample_key(
        changed("generate", reweight=other), CAPTION, "replacement", 0
    )


@pytest.mark.parametrize(
    ("profile", "caption", "kind", "place"),
    [
        (PROFILE.model_copy(update={"seed": 1}), CAPTION, "removal", (1, 2)),
        (changed("describe", max_new_tokens=7), CAPTION, "removal", (1, 2)),
        (PROFILE, f"{CAPTION} ", "removal", (1, 2)),
        (PROFILE, CAPTION, "replacement", (1, 2)),
        (PROFILE, CAPTION, "removal", (2, 1)),
        (PROFILE, CAPTION, "removal", (12,)),
    ],
)
def test_anything_else_changes_a_key(profile: Profile, caption: str, kind: str, place: tuple[int, ...]) -> None:
    assert sample_key(profile, caption, kind, *place) != sample_key(PROFILE, CAPTION, "removal", 1, 2)
