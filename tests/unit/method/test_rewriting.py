"""The laws of `imgdiffd.method.rewriting`, on answers of the kind that Vicuna gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.method.filters import Verdict
from imgdiffd.method.messages import RewriteOutput
from imgdiffd.method.profile import load_profile
from imgdiffd.method.rewriting import clean_answer, judge_answer

REWRITE = load_profile("default").rewrite
CAPTION = "A man riding a horse on the beach."


def output(answer: str | None, *, truncated: bool = False, answer_tokens: int = 12) -> RewriteOutput:
    return RewriteOutput(1, answer, truncated, caption_tokens=10, answer_tokens=answer_tokens, seed=7)


def judged(answer: str | None, *, caption: str = CAPTION, truncated: bool = False, answer_tokens: int = 12) -> Verdict:
    return judge_answer(caption, output(answer, truncated=truncated, answer_tokens=answer_tokens), REWRITE)


@pytest.mark.parametrize(
    ("caption", "answer"),
    [
        (CAPTION, "A man riding a camel on the beach."),
        (CAPTION, '"A man riding a camel on the beach."'),
        (CAPTION, " A woman riding a horse on the beach.\n"),
        (CAPTION, "“A man riding a bicycle on the beach”"),
        (CAPTION, "A man riding an elephant on the beach.###"),
        ("a dog", "a cat"),
        ("dog", "cat"),
        ("A kitchen with a stove, a sink and a microwave.", "A kitchen with a stove, a sink and a sofa."),
        ("Two dogs play with a frisbee in the yard.", "Two cats play with a frisbee in the yard."),
        ("a red ball on the grass", "a blue cube on the grass"),
        ('A sign that says "Stop" by a road.', 'A sign that says "Stop" by a car.'),
        ("Note: no parking near the gate", "Note: no parking near the bench"),
        ("I'm sorry, says the man's shirt", "I'm sorry, says the man's hat"),
        ("A man replaces a tire on a car.", "A man replaces a tire on a truck."),
        ("Here is a plate with a sandwich.", "Here is a plate with a donut."),
        ("A bench with nothing on it", "A bench with a cat on it"),
    ],
)
def test_caption_with_one_object_replaced_passes(caption: str, answer: str) -> None:
    assert judged(answer, caption=caption) == Verdict()


@pytest.mark.parametrize(
    "answer", [CAPTION, CAPTION.lower(), f'"{CAPTION}"', "A man, riding a horse on the beach", f"  {CAPTION}\n\n"]
)
def test_answer_with_the_same_words_is_unchanged(answer: str) -> None:
    assert judged(answer).reason == "unchanged"


@pytest.mark.parametrize("answer", ["", "   \n ", '""', "...", "###"])
def test_answer_without_words_is_empty(answer: str) -> None:
    assert judged(answer).reason == "empty"


def test_caption_that_was_never_asked_for_is_too_long() -> None:
    verdict = judge_answer(CAPTION, RewriteOutput(1, None, False, 120, 0, 7), REWRITE)
    assert verdict == Verdict("caption_too_long", "120 tokens, at most 77")


def test_an_unended_answer_is_truncated_even_if_it_reads_well() -> None:
    assert judged("A man riding a camel on the beach", truncated=True).reason == "truncated"


@pytest.mark.parametrize(
    "answer",
    [
        'A man riding a camel on the beach.\n\nNote: I replaced "horse" with "camel".',
        "A man riding a camel on the beach.\nA man riding a dog on the beach.",
        "1. A man riding a camel on the beach.\r\n2. A man riding a car on the beach.",
    ],
)
def test_answer_of_several_lines_is_refused(answer: str) -> None:
    assert judged(answer).reason == "several_lines"


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I cannot replace anything in this sentence.",
        "I’m sorry, I can’t do that.",
        "As an AI language model, I do not have access to images.",
        "I cannot replace an entity without more context.",
        "There is no entity in this sentence to replace.",
        "I'm not sure what you mean by that.\n\nPlease give more context.",
    ],
)
def test_refusal_is_named_as_such(answer: str) -> None:
    assert judged(answer).reason == "refusal"


@pytest.mark.parametrize(
    "answer",
    [
        "Here is the replaced sentence: A man riding a camel on the beach.",
        "Here's the sentence with one entity replaced: A man riding a camel on the beach.",
        "Sure! A man riding a camel on the beach.",
        "Sure, here is the sentence: 'A man riding a camel on the beach.'",
        "Replaced sentence: A man riding a camel on the beach.",
        "The replaced sentence is: A man riding a camel on the beach.",
        "Note: A man riding a camel on the beach.",
        "A man riding a camel on the beach. (Replaced horse with camel)",
        "A man riding a horse on the beach. -> A man riding a camel on the beach.",
        "horse is replaced with a camel on the beach",
        "ASSISTANT: A man riding a camel on the beach.",
        "Answer: A man riding a camel on the beach.",
    ],
)
def test_talk_about_the_task_is_not_a_caption(answer: str) -> None:
    assert judged(answer).reason == "meta_talk"


def test_answer_over_the_painters_token_limit_is_too_long() -> None:
    assert judged("A man riding a camel on the beach.", answer_tokens=78).reason == "too_long"
    assert judged("A man riding a camel on the beach.", answer_tokens=77).passed


def test_answer_with_far_more_words_than_the_caption_is_too_long() -> None:
    story = (
        "A man riding a camel on the beach while many children in bright clothes watch from a boat near the old pier"
    )
    assert judged(story, caption="A man riding a horse.").reason == "too_long"


def test_another_sentence_is_too_different() -> None:
    assert judged("Several children eating pizza in their kitchen").reason == "too_different"


def test_change_of_anything_but_a_noun_is_refused() -> None:
    verdict = judged("a blue ball on the grass", caption="a red ball on the grass")
    assert verdict.reason == "no_noun_changed"


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("'A cat.'", "A cat."),
        ('"A cat.', "A cat."),
        ('A cat."', "A cat."),
        ("  A   cat\ton a mat ", "A cat on a mat"),
        ("\"'A cat.'\"", "A cat."),
        ('"Stop" and "Go" by "Me"', '"Stop" and "Go" by "Me"'),
        ("the dogs'", "the dogs'"),
        ("A cat.</s>", "A cat."),
        ("\n\nA cat.\n \n", "A cat."),
        ("A cat.\n\nA dog.", "A cat.\nA dog."),
    ],
)
def test_cleaning_takes_off_what_is_around_the_caption(answer: str, caption: str) -> None:
    assert clean_answer(answer) == caption


@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean_answer(clean_answer(text)) == clean_answer(text)


@given(st.text(), st.text())
def test_every_answer_gets_a_verdict_and_passes_as_one_line(caption: str, answer: str) -> None:
    verdict = judged(answer, caption=caption)
    if verdict.passed:
        assert clean_answer(answer) not in {"", caption}
        assert "\n" not in clean_answer(answer)
