"""Any chat LLM rewrites, any image-text-to-text model describes and rewrites, as its own library would have it."""

from pathlib import Path

import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from imgdiffd.method.messages import DescribeInput, RegionInput, RewriteInput
from imgdiffd.method.profile import load_profile
from imgdiffd.pipeline import Role, Stage
from imgdiffd.stages.describe import question
from imgdiffd.stages.images import Images
from tests.tiny import captioners as tiny_captioners
from tests.tiny import other_captioners
from tests.tiny.chats import CHATS, save_chat, save_vicuna
from tests.tiny.swapped import changed, loaded, ran, save_images, swapped, with_source

CAPTIONS = ("a red ball and a blue house on the grass", "a fish", "a red star and a blue house on the grass")
BOXES = ((0, 0, 64, 48), (5, 6, 30, 38))


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return save_images(tmp_path)


@pytest.mark.parametrize("family", CHATS)
def test_another_chat_llm_answers_as_its_own_library_has_it(base: Path, tmp_path: Path, family: str) -> None:
    folder = save_chat(base / family, family)
    profile = changed("rewrite", prompt="Change: {caption}", temperature=0.0, max_new_tokens=10)
    inputs = [RewriteInput(item, caption, 0) for item, caption in enumerate(CAPTIONS)]
    answers = ran(with_source(base, "rewriter", family), Stage.REWRITE, (Role.REWRITER,), profile, tmp_path, *inputs)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for entry, answer in zip(inputs, answers, strict=True):
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Change: {entry.caption}"}],
            add_generation_prompt=True,
            enable_thinking=False,
            return_tensors="pt",
        )
        made = model.generate(**asked, max_new_tokens=10, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert answer.answer == tokenizer.decode(made, skip_special_tokens=True).strip()
        assert answer.truncated == (int(made[-1]) not in model.generation_config.eos_token_id)


def test_a_model_that_thinks_aloud_is_asked_not_to(base: Path) -> None:
    folder = save_chat(base / "qwen3", "qwen3")
    rewriter = loaded(with_source(base, "rewriter", "qwen3"), Role.REWRITER).need_rewriter
    asked = rewriter.prompt_tokens("a fish", load_profile("mini").rewrite)
    assert AutoTokenizer.from_pretrained(folder).decode(asked).endswith("<think>\n\n</think>\n\n")


def test_vicunas_layout_is_read_and_its_template_is_a_line(base: Path, tmp_path: Path) -> None:
    folder = save_vicuna(base / "vicuna")
    template = "{{ bos_token }}{% for m in messages %}USER: {{ m['content'] }} ASSISTANT:{% endfor %}"
    bundle = swapped(base, "rewriter", 'source = "rewriter"', f'source = "vicuna"\nchat_template = "{template}"')
    profile = changed("rewrite", prompt="Change: {caption}", temperature=0.0, max_new_tokens=10)
    (answer,) = ran(bundle, Stage.REWRITE, (Role.REWRITER,), profile, tmp_path, RewriteInput(1, CAPTIONS[0], 0))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer(
        f"<s>USER: Change: {CAPTIONS[0]} ASSISTANT:",
        add_special_tokens=False,
        return_tensors="pt",
        return_token_type_ids=False,
    )
    assert asked["input_ids"][0, 0] == tokenizer.bos_token_id
    assert asked["input_ids"].shape[1] < len("USER: Change:  ASSISTANT:" + CAPTIONS[0])  # words are pieces, not bytes
    made = model.generate(**asked, max_new_tokens=10, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert answer.answer == tokenizer.decode(made, skip_special_tokens=True).strip()


CAPTIONERS = {
    **tiny_captioners.FAMILIES,
    "llava": other_captioners.save_llava,
    "qwen3_vl": other_captioners.save_qwen3_vl,
}


@pytest.mark.parametrize("family", CAPTIONERS)
def test_another_captioner_answers_as_its_own_library_has_it(
    base: Path, images: Images, tmp_path: Path, family: str
) -> None:
    folder = base / f"captioner-{family}"
    CAPTIONERS[family](folder)
    profile = changed("describe", max_new_tokens=6)
    regions = tuple(RegionInput(index, box) for index, box in enumerate(BOXES))
    roles = (Role.CLIP, Role.BLIP, Role.CAPTIONER)
    asked = DescribeInput(1, "1.png", "2.png", regions)
    (described,) = ran(with_source(base, "captioner", folder.name), Stage.DESCRIBE, roles, profile, tmp_path, asked)
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    for region, box in zip(described.regions, BOXES, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": question(profile.describe, box, 64, 48)}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        for name, answer in (("1.png", region.text1), ("2.png", region.text2)):
            inputs = processor(images=[images.read(name)], text=[text], return_tensors="pt")
            made = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
            assert answer == processor.tokenizer.decode(made, skip_special_tokens=True).strip()
            assert answer


@pytest.mark.parametrize("family", CAPTIONERS)
def test_a_captioner_rewrites_as_its_own_library_has_it(base: Path, tmp_path: Path, family: str) -> None:
    """Alone on a device and beside the captioner whose model it is."""
    folder = base / f"captioner-{family}"
    CAPTIONERS[family](folder)
    bundle = base / f"shared-{family}.toml"
    tables = with_source(base, "captioner", folder.name).read_text("utf-8")
    bundle.write_text(
        'rewriter = "captioner"\n' + tables.replace('[rewriter]\nsource = "rewriter"\nrows_per_pass = 3\n', "")
    )
    profile = changed("rewrite", prompt="Change: {caption}", temperature=0.0, max_new_tokens=10)
    inputs = [RewriteInput(item, caption, 0) for item, caption in enumerate(CAPTIONS)]
    answers, beside = (
        ran(bundle, Stage.REWRITE, roles, profile, tmp_path, *inputs)
        for roles in ((Role.REWRITER,), (Role.REWRITER, Role.CAPTIONER))
    )
    assert answers == beside
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    for entry, answer in zip(inputs, answers, strict=True):
        content = [{"type": "text", "text": f"Change: {entry.caption}"}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        asked = processor(text=[text], return_tensors="pt")
        made = model.generate(**asked, max_new_tokens=10, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert answer.answer == processor.tokenizer.decode(made, skip_special_tokens=True).strip()
