"""The object that a caption is about is the head noun of its first noun phrase."""

import pytest

from imgdiffd.method.phrases import object_name, tokens_of

NAMES = frozenset({"traffic light", "dining table", "teddy bear", "fire hydrant"})


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("an orange moon", "moon"),
        ("an orange on a plate", "orange"),
        ("an orange", "orange"),
        ("Two oranges and a banana", "orange"),
        ("an orange and white cat", "cat"),
        ("a light brown horse", "horse"),
        ("a black and white photo of a dog", "dog"),
        ("a horse, brown and white, in a field", "horse"),
        ("The image shows a small brown dog.", "dog"),
        ("a close-up of a cat's face", "face"),
        ("a pair of shoes", "shoe"),
        ("a group of people", "people"),
        ("The region contains two women holding umbrellas.", "woman"),
        ("a red traffic light", "traffic light"),
        ("brown teddy bears on a bed", "teddy bear"),
        ("a bear on a bed", "bear"),
        ("a plane flies over the city", "plane"),
        ("a person cutting a cake", "person"),
        ("a brick building in the city", "building"),
        ("a cup of coffee", "cup"),
        ("the top of a building", "building"),
        ("There is a bus", "bus"),
        ("a picture", "picture"),
        ("", None),
        ("running and jumping", None),
    ],
)
def test_object_is_the_head_of_the_first_noun_phrase(caption: str, name: str | None) -> None:
    assert object_name(tokens_of(caption), NAMES) == name
