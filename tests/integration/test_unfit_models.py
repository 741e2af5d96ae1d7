"""A model that does not fit its role is refused at loading: one line with its name, the reason and what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, BlipForConditionalGeneration, BlipForImageTextRetrieval

from imgdiffd.errors import BundleError
from imgdiffd.pipeline import Role
from tests.tiny import models as tiny_models
from tests.tiny import other_models
from tests.tiny.sdxl import tiny_unet
from tests.tiny.swapped import loaded, with_source


def _sdxl_of(unet: Any) -> Callable[[Path], object]:
    def save(folder: Path) -> None:
        other_models.save_sdxl(folder)
        unet.save_pretrained(folder / "unet")

    return save


def _rewriter_with(chat_template: str | None) -> Callable[[Path], object]:
    return lambda folder: tiny_models.save_rewriter(folder, chat_template=chat_template)


def _captioner_without_template(folder: Path) -> None:
    tiny_models.save_captioner(folder)
    (folder / "chat_template.jinja").unlink()


def _code_of_its_own(folder: Path) -> None:
    tiny_models.save_captioner(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"model_type": "internvl_chat", "auto_map": {"AutoConfig": "configuration_internvl_chat.Config"}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "configuration_internvl_chat.py").write_text("raise SystemExit('this has run')\n", "utf-8")
    (folder / "processor_config.json").unlink()


def _bert(folder: Path) -> None:
    other_models.save_blip(folder, 24, 24, 32)
    size = {"hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=99, **size)).save_pretrained(folder)


def _blip_that_describes(folder: Path) -> None:
    other_models.save_blip(folder, 24, 24, 32)
    config = BlipForImageTextRetrieval.from_pretrained(folder).config
    BlipForConditionalGeneration(config).save_pretrained(folder)


def _plain_network(folder: Path) -> None:
    torch.save({"model": torch.nn.Linear(2, 2)}, folder / "tiny-seg.pt")


UNFIT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no chat template": ("rewriter", _rewriter_with(None), "no chat template .set chat_template under"),
    "a template for others": (
        "rewriter",
        _rewriter_with("{{ raise_exception('tools only') }}"),
        "refuses a user's message: tools only .set chat_template",
    ),
    "SD 1.5": ("painter", other_models.save_sd15, "no tokenizer_2 and no text_encoder_2: SDXL has two"),
    "an inpainting UNet": ("painter", _sdxl_of(tiny_unet(in_channels=9)), "reads 9 channels and writes 4"),
    "texts of another width": ("painter", _sdxl_of(tiny_unet(cross_attention_dim=48)), "of width 48, .* write 64"),
    "a text model": ("clip", _bert, "a BertModel does not embed images and texts .name a CLIP"),
    "SigLIP 2 of any shape": ("clip", other_models.save_siglip2_of_any_shape, "SigLIP 2 of fixed resolution"),
    "a BLIP that describes": ("blip", _blip_that_describes, "its weights lack"),
    "a CLIP for a BLIP": ("blip", tiny_models.save_clip, "of type clip .name a BLIP for image-text retrieval"),
    "a detector": ("segmenter", lambda f: other_models.save_ultralytics(f, "tiny-seg.pt", "yolov8n"), "DetectionModel"),
    "a network of torch": ("segmenter", _plain_network, "a Linear, which makes no masks"),
    "weights alone": ("segmenter", lambda f: torch.save({"a": torch.ones(1)}, f / "tiny-seg.pt"), "no network"),
    "a CLIP for an LLM": ("rewriter", tiny_models.save_clip, "of type clip .name a chat LLM"),
    "no image template": (
        "captioner",
        _captioner_without_template,
        "no chat template .set chat_template under .captioner",
    ),
    "code of its own": ("captioner", _code_of_its_own, "code of its own, which is never run"),
    "an LLM without eyes": ("captioner", tiny_models.save_rewriter, "of type llama .name an image-text-to-text model"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_model_unfit_for_its_role_is_refused_in_one_line(base: Path, case: str) -> None:
    role, save, reason = UNFIT[case]
    folder = base / case.replace(" ", "-").replace(".", "")
    folder.mkdir()
    save(folder)
    with pytest.raises(BundleError, match=f"^bundle tiny: {role}: .*{folder.name}.*{reason}") as refused:
        loaded(with_source(base, role, folder.name), Role(role))
    assert refused.value.hint
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600
