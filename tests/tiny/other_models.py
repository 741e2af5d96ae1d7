"""Tiny random painters, contrastive models and segmenters that may play a role instead of those the paper names."""

from pathlib import Path
from typing import Any

import sentencepiece
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    GemmaTokenizer,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTokenizer,
)

from imgdiffd.mini.tokenizer import build_tokenizer
from tests.tiny.chats import bytes_of_sentencepiece
from tests.tiny.models import SENTENCES, WORDS
from tests.tiny.sdxl import IMAGE_PX, tiny_unet


def save_sdxl(folder: Path, *, widths: tuple[int, int] = (32, 32), scheduler: Any = None, **save: Any) -> Path:
    """An SDXL whose text encoders are `widths` wide, of different depths; `save` goes to `save_pretrained`."""
    tokenizer = build_tokenizer()
    first, second = (
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=width,
            eos_token_id=tokenizer.eos_token_id,
        )
        for width, layers in zip(widths, (2, 3), strict=True)
    )
    torch.manual_seed(12)
    StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(first),
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=tiny_unet(cross_attention_dim=sum(widths), projection_class_embeddings_input_dim=6 * 8 + widths[1]),
        scheduler=scheduler or EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="leading"),
        add_watermarker=False,
    ).save_pretrained(folder, **save)
    return folder


def vae() -> AutoencoderKL:
    """An autoencoder that halves both sides."""
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_PX,
    )


def save_sd15(folder: Path) -> Path:
    """A Stable Diffusion 1.5: one text encoder, a UNet that is told nothing else."""
    tokenizer = build_tokenizer()
    text = CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=IMAGE_PX // 2,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            norm_num_groups=8,
            attention_head_dim=4,
        ),
        scheduler=EulerDiscreteScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


# Contrastive models.


def _towers(width: int, image: int, patch: int, **text: Any) -> dict[str, Any]:
    shape = {"intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**shape, "hidden_size": width, "image_size": image, "patch_size": patch, "initializer_range": 0.3}
    return {"vision_config": vision, "text_config": {**shape, "hidden_size": width, "initializer_range": 0.3, **text}}


def save_clip(folder: Path, width: int, image: int, patch: int) -> Path:
    """A CLIP whose towers are `width` wide and whose images have `image` px in patches of `patch`."""
    tokenizer = build_tokenizer()
    torch.manual_seed(2)
    text = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    CLIPModel(CLIPConfig(**_towers(width, image, patch, **text), projection_dim=width // 2)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": image}, crop_size={"height": image, "width": image}).save_pretrained(
        folder
    )
    return folder


def save_siglip(folder: Path) -> Path:
    """A SigLIP: its own SentencePiece tokenizer, no projection, texts of 16 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SENTENCES.lower()] * 9),
        model_prefix=str(folder / "spiece"),
        vocab_size=120,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=16, model_input_names=["input_ids"])
    return _save_siglip(folder, tokenizer, len(tokenizer))


def save_siglip2(folder: Path) -> Path:
    """A SigLIP 2 of fixed resolution: SigLIP's classes, but Gemma's tokenizer, which keeps capitals."""
    vocabulary = bytes_of_sentencepiece(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))
    return _save_siglip(folder, GemmaTokenizer(vocab=vocabulary, merges=[], padding_side="right"), len(vocabulary))


def _save_siglip(folder: Path, tokenizer: Any, vocabulary: int) -> Path:
    torch.manual_seed(2)
    text = {"vocab_size": vocabulary, "max_position_embeddings": 16, "projection_size": 24, "eos_token_id": 1}
    model = SiglipModel(SiglipConfig(**_towers(24, 40, 8, **text)))
    for weight in model.parameters():  # its own initialisation makes all texts nearly alike
        weight.data.normal_(std=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 40, "width": 40}).save_pretrained(folder)
    return folder


def save_siglip2_of_any_shape(folder: Path) -> Path:
    """A NaFlex SigLIP 2, which takes each image in as many patches as its shape wants."""
    vocabulary = bytes_of_sentencepiece(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))
    towers = _towers(24, 40, 8, vocab_size=len(vocabulary), max_position_embeddings=16)
    towers["vision_config"] = {**towers["vision_config"], "num_patches": 16}
    Siglip2Model(Siglip2Config(**towers)).save_pretrained(folder)
    GemmaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)
    return folder


def save_blip(folder: Path, vision: int, text: int, image: int) -> Path:
    """A BLIP for retrieval with towers of two widths, as the large one has, and BERT's tokenizer."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *map(chr, range(97, 123))]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(map(str.lower, words[5:])), 5)}
    vocabulary = {word: number for number, word in enumerate(words[:5])} | vocabulary
    towers = _towers(text, image, 8, vocab_size=len(vocabulary), max_position_embeddings=32, encoder_hidden_size=vision)
    towers["vision_config"] |= {"hidden_size": vision, "intermediate_size": 2 * vision}
    torch.manual_seed(3)
    BlipForImageTextRetrieval(BlipConfig(**towers, image_text_hidden_size=12, projection_dim=12)).save_pretrained(
        folder
    )
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    BlipImageProcessor(size={"height": image, "width": image}).save_pretrained(folder)
    return folder


# Segmenters.


def save_ultralytics(folder: Path, file: str, name: str, *, classes: int = 80, narrower: int = 1) -> None:
    """The network of ultralytics' `name`.yaml with random weights, saved as ultralytics does, as `file`.

    `narrower` divides its widths, its layers stay; some of its heads' classes are made sure enough for boxes.
    """
    from imgdiffd.models.segmenter import quiet_ultralytics

    with quiet_ultralytics():
        from ultralytics import YOLO
        from ultralytics.nn.tasks import yaml_model_load
        from ultralytics.utils import YAML

    folder.mkdir(parents=True, exist_ok=True)
    plan = yaml_model_load(f"{name}.yaml")
    depth, width, most = plan["scales"][plan["scale"]]
    plan |= {"nc": classes, "scales": {plan["scale"]: [depth, width / narrower, most]}}
    YAML.save(folder / f"{name}.yaml", plan)
    torch.manual_seed(5)
    made = YOLO(folder / f"{name}.yaml", verbose=False)
    for branches in (getattr(made.model.model[-1], each, None) for each in ("cv3", "one2one_cv3")):
        for branch in branches or ():
            branch[-1].bias.data.normal_(std=0.1)
            branch[-1].weight.data.normal_(std=0.5)
    made.save(folder / file)
