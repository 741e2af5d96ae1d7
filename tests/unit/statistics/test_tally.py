"""What statistics count of samples: objects, pairs, words that change, repeats, scores."""

from pathlib import Path

import pytest
from PIL import Image

from imgdiffd.statistics.objects365 import class_names, object_names
from imgdiffd.statistics.report import Count, KindStatistics
from imgdiffd.statistics.tally import KindTally, Seen

NOWHERE = (Path("/nowhere/0.jpg"), Path("/nowhere/1.jpg"))


def told(*texts: tuple[str, ...], drawn: int = 1, captions: tuple[str, ...] = ()) -> KindStatistics:
    tally = KindTally(images=0, seed=0)
    for number, each in enumerate(texts):
        tally.add(Seen(each, str(number), NOWHERE, captions[number] if captions else ""))
    return tally.report("replacement", drawn)


def words(found: KindStatistics, name: str) -> tuple[int, int, int, int]:
    rows = [row for row in found.words if row.name == name]
    return (rows[0].both, rows[0].differ, rows[0].one, rows[0].none) if rows else (0, 0, 0, 1)


def counts(found: Count) -> tuple[int, float | None]:
    return found.count, None if found.rarefied is None else round(found.rarefied, 9)


def test_orange_moon_is_a_moon() -> None:
    found = told(("an orange moon", "an orange on a plate"))
    assert [(each.name, each.objects365) for each in found.diversity.top_names] == [("moon", False), ("orange", True)]
    assert (found.diversity.names, found.diversity.objects365) == (2, 1)


def test_pairs_are_ordered_and_equal_names_are_none() -> None:
    found = told(("a cat", "a dog"), ("a dog", "a cat"), ("a cat", "two cats"), ("running", "a cat")).diversity
    assert [(each.first, each.second, each.count) for each in found.top_pairs] == [("cat", "dog", 1), ("dog", "cat", 1)]
    assert (found.pairs.count, found.unordered_pairs.count, found.same_name, found.nameless) == (2, 1, 1, 1)


def test_counts_are_rarefied_where_there_are_enough_samples() -> None:
    texts = [("a cat", "a dog"), ("a cat", "a bus")]
    assert counts(told(*texts, drawn=1).diversity.categories) == (3, 2)
    assert counts(told(*texts, drawn=3).diversity.categories) == (3, None)


def test_class_of_words_that_never_changes_is_a_law() -> None:
    found = told(*[("a red ball", "a red cube")] * 40, ("a red ball", "a blue ball"))
    assert words(found, "colour") == (41, 1, 0, 0)
    assert found.laws == (
        "colour words almost never change: both captions of 41 samples have some, and they differ in 1 (2.4 %);"
        " a model trained on these learns that as a law",
    )
    assert told(*[("a red ball", "a blue cube")] * 40).laws == ()


@pytest.mark.parametrize(
    ("first", "second", "name", "expected"),
    [
        ("a grey cat", "a gray dog", "colour", (1, 0, 0, 0)),
        ("an orange on a plate", "an orange cat", "colour", (0, 0, 1, 0)),
        ("a small dog", "a dog", "size", (0, 0, 1, 0)),
        ("two dogs", "three dogs", "number", (1, 1, 0, 0)),
        ("a wood bench", "a wooden chair", "material", (1, 0, 0, 0)),
        ("a glass of milk", "a cup of milk", "material", (0, 0, 0, 1)),
        ("a dog sitting", "a dog running", "action", (1, 1, 0, 0)),
    ],
)
def test_words_are_compared_class_by_class(first: str, second: str, name: str, expected: tuple[int, ...]) -> None:
    assert words(told((first, second)), name) == expected


def test_repeats_are_counted_from_the_second_on() -> None:
    found = told(("a cat", "a dog"), ("A cat", "a dog"), ("the dogs", "the cat"), ("a bus", "a car"), drawn=4).repeats
    assert counts(found.exact) == (1, 1)
    assert counts(found.near) == (2, 2)


def test_samples_of_one_pair_have_one_caption() -> None:
    tally = KindTally(images=0, seed=0)
    for pair, caption in (("1", "a cat on a bed"), ("1", "a cat on a bed"), ("2", "on a bed, the cat"), ("3", "a bus")):
        tally.add(Seen(("a cat", "a dog"), pair, NOWHERE, caption))
    found = tally.report("replacement", 1000)
    assert found.repeated_captions is not None
    assert (found.captions, *counts(found.repeated_captions)) == (3, 1, 1)


def test_histogram_holds_every_score_between_its_ends() -> None:
    tally = KindTally(images=0, seed=0)
    for score in (-0.2, 0.1, 0.1, 0.9349):
        tally.add(Seen(("a cat", "a dog"), "1", NOWHERE, scores={"cosine": score}))
    (found,) = tally.report("replacement", 1).scores
    assert sum(found.counts) == 4
    assert found.low <= found.least == -0.2
    assert found.most == 0.9349 <= found.low + found.width * len(found.counts)
    assert len(found.counts) <= 24


def test_images_that_are_much_alike_are_found_whatever_their_sides(tmp_path: Path) -> None:
    def drawn(name: str, left: bool) -> Path:
        image = Image.linear_gradient("L").rotate(270 if left else 0)
        image.save(tmp_path / name)
        return tmp_path / name

    tally = KindTally(images=10, seed=0)
    pairs = [(drawn("a0.jpg", True), drawn("a1.png", False)), (drawn("b0.png", False), drawn("b1.png", True))]
    pairs += [(drawn("c0.png", True), drawn("c1.png", True)), (tmp_path / "missing.png", tmp_path / "a1.png")]
    for number, pair in enumerate(pairs):
        tally.add(Seen(("a cat", "a dog"), str(number), pair))
    found = tally.report("replacement", 1).images
    assert found is not None
    assert (found.compared, found.near, found.unreadable) == (3, 2, 1)


def test_objects365_has_its_names() -> None:
    assert (len(class_names()), len(object_names())) == (365, 381)
    assert {"person", "cabinet", "shelf", "traffic light", "sneaker"} <= object_names()
