"""The laws of `imgdiffd.method.nouns`: which nouns a rewrite changed."""

import difflib
import subprocess
import sys
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.method.nouns import COLOURS, changed_nouns, noun_lemma, split_words

MINI_NOUNS = ["ball", "cube", "cone", "star", "ring", "heart", "tree", "house", "car", "fish", "cup", "moon"]


@pytest.mark.parametrize("noun", [*MINI_NOUNS, "person", "people", "bear", "watch", "sign", "skateboard", "kite", "tv"])
def test_objects_that_are_also_verbs_count_as_nouns(noun: str) -> None:
    assert noun_lemma(noun) == noun


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"), ("men", "man"), ("women", "woman"), ("children", "child"), ("buses", "bus"), ("boxes", "box"),
        ("benches", "bench"), ("dishes", "dish"), ("ponies", "pony"), ("knives", "knife"), ("geese", "goose"),
        ("feet", "foot"), ("teeth", "tooth"), ("windows", "window"), ("glasses", "glass"), ("oranges", "orange"),
        ("firemen", "fireman"), ("sheep", "sheep"), ("scissors", "scissors"), ("jeans", "jean"),
    ],
)  # fmt: skip
def test_plural_is_reduced_to_wordnets_lemma(plural: str, singular: str) -> None:
    assert noun_lemma(plural) == singular


@pytest.mark.parametrize("word", ["gas", "bus", "boss", "glass", "grass", "dress", "cactus"])
def test_singular_that_ends_in_s_keeps_it(word: str) -> None:
    assert noun_lemma(word) == word


NOT_OBJECTS = ["a", "an", "in", "on", "at", "it", "us", "two", "three", "large", "old"]


@pytest.mark.parametrize("word", [*sorted(COLOURS), *NOT_OBJECTS])
def test_colours_numbers_and_function_words_are_not_nouns(word: str) -> None:
    assert noun_lemma(word) is None


@pytest.mark.parametrize("word", ["riding", "sitting", "standing", "walk", "walks", "holding", "takes", "covered"])
def test_verb_forms_are_not_nouns(word: str) -> None:
    assert noun_lemma(word) is None


@pytest.mark.parametrize("word", ["building", "painting", "clothing", "ceiling", "ring"])
def test_objects_spelt_like_participles_are_nouns(word: str) -> None:
    assert noun_lemma(word) == word


def test_hyphenated_word_stands_for_itself_or_its_last_part() -> None:
    assert noun_lemma("t-shirt") == "t-shirt"
    assert noun_lemma("half-cube") == "cube"
    assert noun_lemma("half-eaten") is None


def test_replaced_object_is_found_on_both_sides() -> None:
    assert changed_nouns("A man rides a horse.", "A man rides an elephant") == (("horse",), ("elephant",))


def test_adjective_that_changed_with_the_object_is_not_a_noun() -> None:
    assert changed_nouns("a red ball on the grass", "a blue cube on the grass") == (("ball",), ("cube",))


def test_case_and_punctuation_are_no_change() -> None:
    assert changed_nouns("A dog, a cat.", "a Dog a CAT!") == ((), ())


def test_lemma_on_both_sides_is_dropped() -> None:
    assert changed_nouns("two dogs near a cat", "a dog near a horse") == (("cat",), ("horse",))


def test_word_that_only_moved_is_dropped() -> None:
    assert changed_nouns("a dog and a cat", "a cat and a dog") == ((), ())


def test_possessive_counts_as_its_noun() -> None:
    assert changed_nouns("a man's hat", "a dog’s hat") == (("man",), ("dog",))


def test_several_changed_nouns_keep_their_order_and_come_once() -> None:
    nouns1, nouns2 = changed_nouns("a horse beside a horse and a cart", "the zebra, then snow")
    assert nouns1 == ("horse", "cart")
    assert nouns2 == ("zebra", "snow")


def test_added_object_leaves_the_other_side_empty() -> None:
    assert changed_nouns("a bench", "a bench with a cat") == ((), ("cat",))


SOME_WORDS = st.lists(st.sampled_from(["a", "the", "dog", "cat", "dogs", "red", "ball", "on"]))


@given(SOME_WORDS, SOME_WORDS)
def test_changed_words_are_those_that_difflib_differ_marks(words1: list[str], words2: list[str]) -> None:
    lines = list(difflib.Differ().compare(words1, words2))
    marked1 = {noun_lemma(line[2:]) for line in lines if line.startswith("- ")} - {None}
    marked2 = {noun_lemma(line[2:]) for line in lines if line.startswith("+ ")} - {None}
    nouns1, nouns2 = changed_nouns(" ".join(words1), " ".join(words2))
    assert set(nouns1) == marked1 - marked2
    assert set(nouns2) == marked2 - marked1


@given(st.text(), st.text())
def test_any_text_is_taken_and_no_lemma_is_on_both_sides(caption1: str, caption2: str) -> None:
    nouns1, nouns2 = changed_nouns(caption1, caption2)
    assert not set(nouns1) & set(nouns2)


def test_splitting_keeps_inner_hyphens_only() -> None:
    assert split_words("A T-shirt -- 'red', (new)!") == ["a", "t-shirt", "red", "new"]


def test_list_ships_with_its_licence_and_is_small() -> None:
    folder = resources.files("imgdiffd.method").joinpath("data")
    assert "Princeton University" in folder.joinpath("LICENSE.wordnet").read_text("utf-8")
    size = sum(len(folder.joinpath(name).read_bytes()) for name in ("nouns.txt", "noun_exceptions.txt"))
    assert size < 1_000_000


def test_list_is_read_at_first_use_and_only_once() -> None:
    code = (
        "import imgdiffd.method.nouns as nouns\n"
        "print(nouns._nouns.cache_info().misses)\n"
        "nouns.noun_lemma('dogs'); nouns.noun_lemma('cats')\n"
        "print(nouns._nouns.cache_info().misses)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert printed.split() == ["0", "1"]
