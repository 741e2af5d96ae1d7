"""Tiny models with random weights, saved in the standard formats, one folder per role.

Their answers mean nothing: tests look at how they are computed.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

SENTENCES = (
    "a the red blue green ball cube cat dog on in of grass sea and here is sentence please replace one entity with "
    "another only answer what left right image region for provide clear description this their difference : . , ? ! "
    '" [ ] 0 1 2 3 4 5 6 7 8 9 USER ASSISTANT'
)
WORDS = tuple(SENTENCES.split())
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
CHAT = (
    "{{ bos_token }}{% for m in messages %}USER: {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IMAGE_CHAT = (
    "{% for m in messages %}USER: {% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": len(WORDS) + len(SPECIAL),
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # wide, so that the likeliest token is clear
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 8,
    "initializer_range": 0.3,
}


def tokenizer(length: int, chat_template: str | None = None, *, ends: bool = False) -> PreTrainedTokenizerFast:
    """A fast tokenizer of whole words; `ends` puts <s> and </s> around each text, as CLIP's does."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    if ends:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        model_max_length=length,
        chat_template=chat_template,
    )


def save_rewriter(folder: Path, *, chat_template: str | None = CHAT) -> None:
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**TEXT)).save_pretrained(folder)
    tokenizer(256, chat_template).save_pretrained(folder)


def save_clip(folder: Path) -> None:
    torch.manual_seed(2)
    text = {**TEXT, "max_position_embeddings": 20}
    CLIPModel(
        CLIPConfig(text_config=text, vision_config={**VISION, "image_size": 32}, projection_dim=16)
    ).save_pretrained(folder)
    tokenizer(20, ends=True).save_pretrained(folder)
    size = {"shortest_edge": 32}
    CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def save_blip(folder: Path) -> None:
    torch.manual_seed(3)
    text = {**TEXT, "max_position_embeddings": 24, "encoder_hidden_size": 32, "sep_token_id": 2}
    config = BlipConfig(
        text_config=text, vision_config={**VISION, "image_size": 32}, image_text_hidden_size=16, projection_dim=16
    )
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    tokenizer(24, ends=True).save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def save_captioner(folder: Path) -> None:
    torch.manual_seed(4)
    vision = {**VISION, "image_size": 32, "model_type": "clip_vision_model", "projection_dim": 16}
    pinpoints = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = LlavaNextConfig(
        vision_config=vision,
        text_config={**TEXT, "model_type": "llama"},
        image_token_index=SPECIAL.index("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)
    size, crop = {"shortest_edge": 32}, {"height": 32, "width": 32}
    LlavaNextProcessor(
        LlavaNextImageProcessor(size=size, crop_size=crop, image_grid_pinpoints=pinpoints),
        tokenizer(256),
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=IMAGE_CHAT,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def save_segmenter(folder: Path, file: str = "tiny-seg.pt") -> None:
    from imgdiffd.models.segmenter import quiet_ultralytics

    with quiet_ultralytics():
        import ultralytics
        from ultralytics.nn.tasks import SegmentationModel

    torch.manual_seed(5)
    backbone = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    head = [[[1, 2], 1, "Segment", ["nc", 4, 8]]]
    network = SegmentationModel({"nc": 1, "backbone": backbone, "head": head}, ch=3, nc=1, verbose=False)
    network.names, network.args = {0: "object"}, {}
    for branch in network.model[-1].cv3:  # so sure of objects that there are boxes
        branch[-1].bias.data.zero_()
        branch[-1].weight.data.normal_(std=0.5)
    folder.mkdir(parents=True, exist_ok=True)
    state = {"epoch": -1, "model": network.half(), "ema": None, "train_args": {"task": "segment", "imgsz": 64}}
    torch.save({**state, "version": ultralytics.__version__}, folder / file)


def save_all(folder: Path) -> Path:
    """Saves a folder for every role except the painter, and a bundle file that names them; returns the file."""
    save_rewriter(folder / "rewriter")
    save_clip(folder / "clip")
    save_blip(folder / "blip")
    save_captioner(folder / "captioner")
    save_segmenter(folder / "segmenter")
    tables = [f'[{role}]\nsource = "{role}"\n' for role in ("painter", "clip", "blip")]
    tables += [
        '[rewriter]\nsource = "rewriter"\nrows_per_pass = 3\n',
        '[captioner]\nsource = "captioner"\nrows_per_pass = 3\n',
    ]
    tables += ['[segmenter]\nsource = "segmenter"\nfile = "tiny-seg.pt"\nborder_px = 2\n']
    path = folder / "bundle.toml"
    path.write_text('name = "tiny"\n\n' + "\n".join(tables), "utf-8")
    return path
