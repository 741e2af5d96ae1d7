"""The laws of the miniature world and of its tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from imgdiffd.mini.tokenizer import MAX_TOKENS, build_tokenizer
from imgdiffd.mini.world import (
    COLOURS,
    IMAGE_PX,
    NOTHING,
    NOUNS,
    PLACES,
    Scene,
    caption_of,
    draw_layout,
    draw_pair,
    draw_scene,
    parse_caption,
)

seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def scene_of(seed: int, **given: object) -> Scene:
    return draw_scene(np.random.default_rng(seed), **given)  # type: ignore[arg-type]


def test_the_same_seed_draws_the_same_scene() -> None:
    one, other = scene_of(5), scene_of(5)
    assert one.caption == other.caption
    assert np.array_equal(one.image, other.image)
    assert not np.array_equal(one.image, scene_of(6).image)


@given(seeds)
def test_a_scenes_caption_reads_back_as_its_objects_and_place(seed: int) -> None:
    scene = scene_of(seed)
    assert parse_caption(scene.caption) == ([(each.noun, each.colour) for each in scene.objects], scene.place)


@given(seeds)
def test_a_box_is_tight_on_its_visible_mask(seed: int) -> None:
    for each in scene_of(seed, masks=True).objects:
        assert each.mask is not None
        x1, y1, x2, y2 = (int(edge) for edge in each.box)
        inside = each.mask[y1:y2, x1:x2]
        assert inside.sum() == each.mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        assert min(x2 - x1, y2 - y1) >= 10


@given(seeds)
def test_objects_of_a_scene_share_no_noun_and_no_pixel(seed: int) -> None:
    scene = scene_of(seed, count=3, masks=True)
    assert len({each.noun for each in scene.objects}) == 3
    masks = [each.mask for each in scene.objects if each.mask is not None]
    assert len(masks) == 3
    assert np.sum(masks, axis=0).max() == 1


@given(seeds)
def test_a_ground_truth_pair_differs_only_at_its_object(seed: int) -> None:
    before, after, index = draw_pair(np.random.default_rng(seed))
    assert before.objects[index].noun != after.objects[index].noun
    assert before.place == after.place
    kept = [i for i in range(len(before.objects)) if i != index]
    assert all(before.objects[i].noun == after.objects[i].noun for i in kept)
    boxes = (before.objects[index].box, after.objects[index].box)
    changed = np.argwhere((before.image != after.image).any(axis=2))
    assert len(changed)
    margin = 2.0  # antialiased outlines reach a little beyond the mask
    assert changed[:, 1].min() >= min(box[0] for box in boxes) - margin
    assert changed[:, 0].min() >= min(box[1] for box in boxes) - margin
    assert changed[:, 1].max() <= max(box[2] for box in boxes) + margin
    assert changed[:, 0].max() <= max(box[3] for box in boxes) + margin


def test_places_of_objects_do_not_follow_the_captions_order() -> None:
    layouts = [draw_layout(np.random.default_rng(seed), 2) for seed in range(400)]
    first_is_left = np.mean([layout.poses[0].cx < layout.poses[1].cx for layout in layouts])
    first_is_larger = np.mean([layout.poses[0].half > layout.poses[1].half for layout in layouts])
    assert abs(first_is_left - 0.5) < 0.1
    assert abs(first_is_larger - 0.5) < 0.1


def test_empty_backgrounds_differ_from_scene_to_scene() -> None:
    one, other = (scene_of(seed, count=0, place="grass").image.astype(float) for seed in (1, 2))
    assert np.abs(one - other).mean() > 3


def test_an_empty_scene_is_captioned_with_the_removal_prompt() -> None:
    assert scene_of(3, count=0).caption == NOTHING == "background, nothing, 8k"


def test_captions_name_an_orange_object_with_an() -> None:
    pairs = [("ball", "orange"), ("house", "blue"), ("fish", "green")]
    assert caption_of(pairs, "sea") == "an orange ball, a blue house and a green fish in the sea"


@pytest.mark.parametrize(
    "text",
    [
        "",
        NOTHING,
        "a red ball",
        "a red dog on the grass",
        "a ball on the grass",
        "a red ball on the grass and more",
        "Sure! a red ball on the grass",
        "a red ball on the moon",
    ],
)
def test_a_text_outside_the_grammar_is_no_caption(text: str) -> None:
    assert parse_caption(text) is None


def test_capitals_a_full_stop_and_a_wrong_article_are_forgiven() -> None:
    assert parse_caption("A orange ball and an red cup at night.") == ([("ball", "orange"), ("cup", "red")], "night")


def test_every_word_of_the_world_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for place in PLACES:
        for noun in NOUNS:
            for colour in COLOURS:
                caption = caption_of([(noun, colour), ("ball", "red")], place)
                assert len(tokenizer.tokenize(caption)) == len(caption.split())


def test_the_tokenizer_survives_saving_and_spells_unknown_words(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "a zebra (striped), №7"
    assert loaded.get_vocab() == tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert loaded.tokenize(text) == tokenizer.tokenize(text)
    assert loaded.unk_token_id not in loaded.convert_tokens_to_ids(loaded.tokenize(text))
    assert loaded.model_max_length == MAX_TOKENS
    assert loaded(text).input_ids[0] == loaded.bos_token_id


def test_images_are_square_rgb_bytes() -> None:
    image = scene_of(1).image
    assert image.shape == (IMAGE_PX, IMAGE_PX, 3)
    assert image.dtype == np.uint8
