"""The sizes at which models are measured, and the loads that they are measured under."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.reference import real_size
from tests.reference.real_size import Config


@dataclass(frozen=True)
class Sizes:
    """Configurations as in `tests.reference.real_size`, and the loads that they are measured under."""

    name: str
    unet: Config
    vae: Config
    text_encoder: Config
    text_encoder_2: Config
    language: Mapping[str, tuple[Config, Config]]  # by bundle: its rewriter and its captioner
    clip: Config
    blip: Config
    segmenter: str | Config
    picture_px: int
    steps: int
    batches: tuple[int, ...]  # pairs painted at once
    rewrites: int  # captions rewritten at once
    questions: int = 5
    new_tokens: tuple[int, int, int] = (32, 64, 128)  # of a rewrite, a region's description, a difference
    matrix: int = 8192  # rows and columns of the product that the device's rate is taken from
    boxes: int = 160  # of one image
    differing: int = 40  # of them, those that BLIP is asked about
    bundle: str = "paper"  # the one whose language models are measured

    @property
    def rewriter(self) -> Config:
        """The rewriter's configuration."""
        return self.language[self.bundle][0]

    @property
    def captioner(self) -> Config:
        """The captioner's configuration."""
        return self.language[self.bundle][1]


REAL = Sizes(
    "real",
    real_size.UNET,
    real_size.VAE,
    real_size.TEXT_ENCODER,
    real_size.TEXT_ENCODER_2,
    {
        "paper": (real_size.VICUNA_13B, real_size.LLAVA_NEXT_13B),
        "small": (real_size.VICUNA_7B, real_size.LLAVA_NEXT_7B),
    },
    real_size.CLIP,
    real_size.BLIP,
    real_size.FASTSAM,
    picture_px=1024,
    steps=50,
    batches=(1, 2, 4),
    rewrites=16,
)
_LAYERS: Config = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_LANGUAGE: Config = _LAYERS | {"vocab_size": 100, "max_position_embeddings": 1024}
_TOWER: Config = _LAYERS | {"image_size": 32, "patch_size": 8}
_ENCODER: Config = _LAYERS | {"num_hidden_layers": 3, "vocab_size": 49408, "projection_dim": 32}
_BACKBONE = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
_LLAVA: Config = {
    "vision_config": _TOWER | {"model_type": "clip_vision_model", "projection_dim": 16},
    "text_config": _LANGUAGE | {"model_type": "llama"},
    "image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]],
    "image_seq_length": 16,
}
TINY = Sizes(
    "tiny",
    unet={
        **real_size.UNET,
        "sample_size": 8,
        "block_out_channels": (32, 64, 64),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 1, 1),
        "attention_head_dim": (1, 2, 2),
        "cross_attention_dim": 64,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
    },
    vae={**real_size.VAE, "block_out_channels": (32,) * 4, "layers_per_block": 1, "sample_size": 64},
    text_encoder=_ENCODER,
    text_encoder_2=_ENCODER,
    language=dict.fromkeys(("paper", "small"), (_LANGUAGE, _LLAVA)),
    clip={
        "text_config": _LAYERS | {"vocab_size": 100},
        "vision_config": _TOWER | {"image_size": 224, "patch_size": 56},
        "projection_dim": 16,
    },
    blip={
        "text_config": _LAYERS | {"vocab_size": 100, "encoder_hidden_size": 32},
        "vision_config": _TOWER | {"image_size": 384, "patch_size": 96},
        "image_text_hidden_size": 16,
    },
    segmenter={"nc": 1, "backbone": _BACKBONE, "head": [[[1, 2], 1, "Segment", ["nc", 4, 8]]]},
    picture_px=64,
    steps=2,
    batches=(2,),
    rewrites=4,
    new_tokens=(4, 4, 4),
    matrix=64,
    boxes=6,
    differing=2,
)
_WIDER: Config = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4}
# SDXL's blocks with fewer channels and layers, heads of 64; language models in which a pass is work, and not overhead.
SMALL = replace(
    TINY,
    name="small",
    unet={
        **TINY.unet,
        "sample_size": 64,
        "block_out_channels": (64, 128, 256),
        "transformer_layers_per_block": (1, 2, 4),
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": 256,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 6 * 32 + 256,
    },
    language={
        "paper": (
            _LANGUAGE | _WIDER,
            {
                **_LLAVA,
                "vision_config": _LLAVA["vision_config"] | {"image_size": 96, "hidden_size": 64},
                "text_config": _LLAVA["text_config"] | _WIDER,
                "image_grid_pinpoints": [[96, 192], [192, 96], [192, 192]],
                "image_seq_length": 144,
            },
        )
    },
    picture_px=512,
    steps=10,
    rewrites=16,
    new_tokens=(16, 16, 16),
)
