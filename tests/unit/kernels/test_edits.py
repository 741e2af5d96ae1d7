"""The laws of aligning captions and of turning an edit into weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.kernels.edits import edit_pairs, injected_steps, refinement_mapper, replacement_mapper
from tests.reference.plain_injection import BEGIN, END, IDS, TOKENS, options, plan, tokenize


def test_only_a_replaced_word_keeps_its_own_attention() -> None:
    mapper, alpha = refinement_mapper(*IDS[0], 8)
    assert alpha == [1, 1, 0, 1, 1, 1, 1, 1]
    assert [position for position, weight in zip(mapper, alpha, strict=True) if weight] == [0, 1, 3, 4, 5, 6, 7]


def test_captions_of_unequal_length_align_around_the_gap() -> None:
    mapper, alpha = refinement_mapper((BEGIN, 1, 2, 3, END), (BEGIN, 1, 7, 8, 2, 3, END), 9)
    assert alpha == [1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert mapper == [0, 1, 0, 0, 2, 3, 4, 7, 8]  # padding stays where it is, as in the reference


@given(st.lists(st.integers(0, 4), max_size=7), st.lists(st.integers(0, 4), max_size=7))
def test_aligned_tokens_are_equal_in_order_and_as_many_as_can_be(source: list[int], target: list[int]) -> None:
    mapper, alpha = refinement_mapper(source, target, 7)
    aligned = [(mapper[at], at) for at in range(len(target)) if alpha[at]]
    assert all(source[one] == target[other] for one, other in aligned)
    assert [one for one, _ in aligned] == sorted({one for one, _ in aligned})
    common = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]  # the longest common subsequence
    for i, one in enumerate(source):
        for j, other in enumerate(target):
            common[i + 1][j + 1] = common[i][j] + 1 if one == other else max(common[i][j + 1], common[i + 1][j])
    assert len(aligned) == common[-1][-1]


def test_a_caption_longer_than_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit into 4"):
        refinement_mapper((1, 2, 3, 4, 5), (1,), 4)


@pytest.mark.parametrize(
    ("fraction", "steps", "wanted"), [(0.4, 50, 20), (1, 20, 20), (0, 20, 0), (0.29, 100, 29), (0.8, 21, 16)]
)
def test_a_fraction_of_the_steps_is_rounded_down(fraction: float, steps: int, wanted: int) -> None:
    assert injected_steps(fraction, steps) == wanted


def test_replaced_words_of_other_length_share_attention() -> None:
    mapper = replacement_mapper("a bb c d", "a b c fgh", tokenize, TOKENS)
    assert mapper[2:4, 2].tolist() == [1, 1]  # two tokens onto one
    assert mapper[5, 4:7].tolist() == pytest.approx([1 / 3] * 3)  # one onto three
    assert [float(mapper[at]) for at in ((0, 0), (1, 1), (4, 3), (6, 7))] == [1, 1, 1, 1]  # begin, equal words, end
    assert all(mapper[at, at] == 1 for at in range(8, TOKENS))
    assert torch.equal(replacement_mapper("a b c", "a b c", tokenize, TOKENS), torch.eye(TOKENS))


def test_replacing_needs_as_many_words_and_names_both_captions() -> None:
    with pytest.raises(ValueError, match=r"'a b c' has 3 words, but 'a b' has 2"):
        plan(1, edit="replace", captions=[("a b c", "a b")])
    with pytest.raises(ValueError, match="does not fit into 12 tokens"):
        plan(1, edit="replace", captions=[("abcdefghijk", "a")])


def test_tokens_unlike_the_words_are_refused_where_words_count() -> None:
    def odd(caption: str) -> list[int]:
        return tokenize(caption + " z") if " " in caption else tokenize(caption)

    given = options(1) | {"tokenize": odd, "tokens": TOKENS}
    edit_pairs(**given)
    with pytest.raises(ValueError, match="'a E c d' are not those of its words"):
        edit_pairs(**given | {"reweight": {"E": 2.0}})


def test_words_match_without_case_and_punctuation() -> None:
    injection = plan(1, captions=[("a b", "a B, b")], reweight={"b": 2.0, "B.": 3.0}, edit="none")
    assert injection.carried[0].diagonal()[:6].tolist() == [1, 1, 3, 3, 3, 1]
