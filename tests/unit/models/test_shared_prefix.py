"""Questions decoded from one copy of an image's keys and values: the plain way's logits, and no memory a question."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import StaticCache

from imgdiffd.models import shared_prefix
from imgdiffd.models.image_prompts import ImagePrompt, ImagePrompts
from imgdiffd.models.shared_prefix import PassShape, SharedPass, let_share
from tests.tiny import captioners as tiny_captioners

QUESTIONS = ("what is this ?", "please describe the red ball in the sea on the grass and the dog , what is left ?")
STEPS = 6
Load = Callable[[], Any]


@pytest.fixture(scope="module", params=tiny_captioners.FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Load, ImagePrompts]:
    """A family's loader, for models that nothing has touched, and its prompts."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder: Path = tmp_path_factory.mktemp(request.param)
    tiny_captioners.FAMILIES[request.param](folder)

    def load() -> Any:
        return AutoModelForImageTextToText.from_pretrained(folder).eval()

    return load, ImagePrompts(AutoProcessor.from_pretrained(folder), torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def image(seed: int, height: int = 48, width: int = 64) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def shape_of(prompt: ImagePrompt, images: int, slots: int) -> PassShape:
    return PassShape(images, slots, prompt.prefix, max(map(len, prompt.tokens)) + 3, STEPS)


def opened(model: Any, prompts: list[ImagePrompt], images: int, slots: int) -> tuple[SharedPass, Tensor]:
    """A pass that has read and been asked `prompts`, spare slots and rows included."""
    shared = SharedPass(model, shape_of(prompts[0], images, slots))
    for row, prompt in enumerate(prompts):
        shared.read(row, prompt.inputs)
    asked = [[*prompt.tokens, *[prompt.tokens[0]] * (slots - len(prompt.tokens))] for prompt in prompts]
    asked += [asked[0]] * (images - len(asked))
    return shared, shared.begin(asked)


def decoded(shared: SharedPass, first: Tensor) -> Tensor:
    """Greedy logits, [images, slots, steps, vocabulary]."""
    seen = [first]
    while len(seen) < STEPS:
        seen.append(shared.step(seen[-1].argmax(-1)))
    return torch.stack(seen, dim=2)


def test_shared_prefixes_answer_like_whole_questions(
    family: tuple[Load, ImagePrompts],
) -> None:
    load, prompts = family
    plain, model = load(), load()
    assert let_share(model) == ""
    images = [image(1), image(2)]
    cut = [prompts.cut(images[0], QUESTIONS), prompts.cut(images[1], QUESTIONS[::-1])]
    shared, first = opened(model, cut, images=3, slots=3)
    found = decoded(shared, first)
    for row, asked in enumerate((QUESTIONS, QUESTIONS[::-1])):
        for slot, question in enumerate(asked):
            whole = prompts.whole(images[row], question)
            limit = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}
            made = plain.generate(**whole, **limit, output_logits=True, return_dict_in_generate=True)
            expected = torch.cat(made.logits)
            assert found[row, slot].argmax(-1).tolist() == expected.argmax(-1).tolist()
            torch.testing.assert_close(found[row, slot], expected, rtol=1e-4, atol=1e-4)


def test_logits_do_not_depend_on_the_other_images_of_the_pass(
    family: tuple[Load, ImagePrompts],
) -> None:
    load, prompts = family
    model = load()
    assert let_share(model) == ""
    cut = [prompts.cut(image(seed), QUESTIONS) for seed in (1, 2, 3)]
    alone = decoded(*opened(model, cut[:1], images=3, slots=2))
    together = decoded(*opened(model, cut, images=3, slots=2))
    assert torch.equal(alone[0], together[0])


def test_a_second_turn_of_questions_forgets_the_first(family: tuple[Load, ImagePrompts]) -> None:
    load, prompts = family
    model = load()
    assert let_share(model) == ""
    prompt = prompts.cut(image(1), QUESTIONS)
    shared, first = opened(model, [prompt], images=1, slots=2)
    fresh = decoded(shared, first)
    decoded(shared, shared.begin([prompt.tokens[::-1]]))
    assert torch.equal(decoded(shared, shared.begin([prompt.tokens])), fresh)


def held_bytes(shared: SharedPass) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in shared.cache.layers)


def test_more_questions_cost_only_their_own_keys_and_values(
    family: tuple[Load, ImagePrompts],
) -> None:
    load, prompts = family
    model = load()
    assert let_share(model) == ""
    prompt = prompts.cut(image(1), QUESTIONS[:1])
    few, _ = opened(model, [prompt], images=2, slots=1)
    many, _ = opened(model, [prompt], images=2, slots=9)
    a_token = held_bytes(few) // shape_of(prompt, 2, 1).keys  # of both images
    shape = shape_of(prompt, 2, 9)
    rounding = 16 * a_token
    assert abs(held_bytes(many) - held_bytes(few) - 8 * (shape.width + STEPS - 1) * a_token) <= rounding


class Largest(TorchDispatchMode):
    """Records the largest tensor that any operation made anew, in bytes."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in given:
                self.nbytes = max(self.nbytes, each.untyped_storage().nbytes())
        return made


def test_a_step_makes_nothing_of_the_size_of_a_layers_keys(family: tuple[Load, ImagePrompts]) -> None:
    """Neither a copy of the prefix a question, nor one a group of heads, nor a cache that grows."""
    load, prompts = family
    model = load()
    assert let_share(model) == ""
    prompt = prompts.cut(image(1, 64, 64), QUESTIONS)
    shared = SharedPass(model, PassShape(1, 2, prompt.prefix, 192, STEPS))
    shared.read(0, prompt.inputs)
    chosen = shared.begin([prompt.tokens]).argmax(-1)
    where = [layer.keys.data_ptr() for layer in shared.cache.layers]
    with Largest() as largest:
        shared.step(chosen)
    assert 0 < largest.nbytes < shared.cache.layers[0].keys.nbytes / 2
    assert [layer.keys.data_ptr() for layer in shared.cache.layers] == where


def test_a_model_with_a_sliding_window_is_refused(family: tuple[Load, ImagePrompts]) -> None:
    model = family[0]()
    text = model.config.get_text_config()
    text.layer_types = ["full_attention", "sliding_attention"]
    assert "whole context" in let_share(model)
    assert text._attn_implementation == "sdpa"


def test_a_model_without_fused_attention_is_refused(family: tuple[Load, ImagePrompts]) -> None:
    model = family[0]()
    model.set_attn_implementation("eager")
    assert let_share(model) == "its attention is eager instead of torch's fused one"


def test_another_role_of_a_shared_model_computes_as_if_alone(
    family: tuple[Load, ImagePrompts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same kernels, so that captions are rewritten alike on a device with a captioner and on one without."""
    monkeypatch.setattr(shared_prefix, "grouped_attention", None)  # rounds otherwise on CUDA
    model, mask = family[0](), torch.ones(3, 32, dtype=torch.long)
    mask[0, :5] = 0

    def logits() -> Tensor:
        cache = StaticCache(config=model.config, max_cache_len=32)
        tokens = torch.arange(3 * 20).reshape(3, 20) % 30 + 6
        positions = (mask[:, :20].cumsum(1) - 1).clamp(min=0)
        read: Tensor = model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).logits
        return read

    alone = logits()
    assert let_share(model) == ""
    assert torch.equal(alone, logits())
