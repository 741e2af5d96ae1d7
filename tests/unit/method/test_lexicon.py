"""One object of a caption is replaced by another of its kind, in the right number and with the right article."""

import pytest

from imgdiffd.method.lexicon import Replaced, lexicon, replace_object
from imgdiffd.method.messages import RewriteOutput
from imgdiffd.method.nouns import noun_lemma, split_words
from imgdiffd.method.plurals import plural_of
from imgdiffd.method.profile import load_profile
from imgdiffd.method.rewriting import judge_answer

REWRITE = load_profile("default").rewrite
CATEGORIES = {
    "appliance", "clothing", "container", "fixture", "food", "fruit", "furniture", "living_thing", "machine",
    "natural_object", "vehicle",
}  # fmt: skip
CAPTIONS = [
    "A man riding a horse down a street.",
    "Two dogs laying on a couch next to a vase of flowers",
    "An apple on a plate beside a cup of coffee",
    "A train traveling down tracks near a forest.",
    "THERE IS A CAT ON THE BED",
    "A herd of zebra standing on a field.",
    "a woman in a red dress holds her umbrella",
]


def drawn(caption: str, number: int = 40) -> list[Replaced]:
    every = [replace_object(caption, seed, REWRITE) for seed in range(number)]
    return [each for each in every if each is not None]


def olds(caption: str) -> set[str]:
    return {each.old.text for each in drawn(caption)}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_object_gives_way_to_another_of_its_category(caption: str) -> None:
    for made in drawn(caption):
        assert made.old.category == made.new.category
        assert made.old.text != made.new.text
        output = RewriteOutput(1, made.caption, False, 10, 10, 0)
        assert judge_answer(caption, output, REWRITE).passed
        assert abs(len(split_words(made.caption)) - len(split_words(caption))) <= 2


def test_seed_alone_decides() -> None:
    caption = CAPTIONS[0]
    assert replace_object(caption, 7, REWRITE) == replace_object(caption, 7, REWRITE)
    assert len({made.caption for made in drawn(caption)}) > 10


def test_article_and_number_follow_the_new_name() -> None:
    for made in drawn("an elephant and two horses"):
        first, *_ = made.caption.split()
        if made.old.text == "elephant":
            assert first == ("an" if made.new.text[0] in "aeiou" else "a")
        else:
            assert made.caption.endswith(f"two {plural_of(made.new.text)}")


def test_herd_of_zebra_becomes_a_herd_of_several() -> None:
    made = drawn("a herd of zebra on a hill")
    assert {each.caption.split()[3] for each in made if each.old.text == "zebra"} >= {"elephants", "lions"}


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a teddy bear on a bed", {"bed"}),  # a name of several words is left alone
        ("a dog house beside a car", {"car"}),  # a noun that describes another one, too
        ("a porcelain dog on a sofa", {"sofa"}),
        ("a dog sits on a sofa", {"dog", "sofa"}),  # a verb that looks like a noun
        ("a wood bench", {"bench"}),
        ("an orange and white cat", {"cat"}),  # a colour is no fruit
        ("three oranges", {"orange"}),
        ("a mustard yellow wall", set()),
        ("a sunny day", set()),
        ("", set()),
    ],
)
def test_only_objects_are_replaced(caption: str, found: set[str]) -> None:
    assert olds(caption) == found


def test_people_agree_with_the_pronouns() -> None:
    for made in drawn("a man walks his dog", 80):
        if made.old.text == "man":
            assert made.new.text not in {"woman", "nun", "lady", "waitress", "ballerina"}


def test_letters_stay_as_large_as_they_were() -> None:
    assert all(made.caption.isupper() for made in drawn("A CAT ON A BED"))
    assert all(made.caption[0].isupper() for made in drawn("Cats on a bed"))


def test_kinds_and_synonyms_of_an_object_do_not_replace_it() -> None:
    news = {made.new.text for made in drawn("a dog", 200)}
    assert not news & {"dog", "puppy", "terrier", "poodle", "hound"}
    assert "cat" in news


def test_drinks_take_the_place_of_drinks_alone() -> None:
    assert all(made.new.mass for made in drawn("a cup of coffee") if made.old.text == "coffee")


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("bus", "buses"), ("baby", "babies"), ("toy", "toys"), ("man", "men"), ("fisherman", "fishermen"),
        ("sheep", "sheep"), ("shorts", "shorts"), ("tomato", "tomatoes"), ("radio", "radios"), ("goose", "geese"),
        ("knife", "knives"), ("rhinoceros", "rhinoceroses"), ("tennis player", "tennis players"), ("couch", "couches"),
        ("glass", "glasses"), ("wolf", "wolves"), ("mouse", "mice"), ("child", "children"), ("cactus", "cactuses"),
    ],
)  # fmt: skip
def test_plural_is_spelled_as_english_does(name: str, plural: str) -> None:
    assert plural_of(name) == plural


def test_every_name_that_replaces_can_be_found_in_a_caption_again() -> None:
    names = [name for name in lexicon().names.values() if name is not None]
    assert {name.category for name in names} == CATEGORIES
    replacing = [name for name in names if name.replaces]
    assert len(replacing) > 600
    for name in replacing:
        assert noun_lemma(name.text.rpartition(" ")[2]) is not None, name.text
        assert [each.name.text for each in lexicon().find(f"a {name.text}.")] in ([name.text], []), name.text
        if not name.mass:
            again = lexicon().find(f"two {plural_of(name.text)}.")
            assert [(each.name.text, each.plural) for each in again] in ([(name.text, True)], []), name.text
