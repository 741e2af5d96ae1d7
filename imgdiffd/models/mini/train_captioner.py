"""Trains the miniature LLaVA-NeXT to describe the region of a box and to put a pair's difference into words.
It does not know where the pipeline's boxes come from nor how its answers are filtered.

The vision tower starts from the CLIP's; the language model is a Llama of four layers of width 128 over whole words and
two-digit numbers. All regions of a scene are asked in one pass: each question sees the picture and itself only.
"""

import sys
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    CLIPModel,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from imgdiffd.models.mini import scenes, train_rewriter, training, vision
from imgdiffd.models.mini.scenes import Scenes, ground_name, region_name
from imgdiffd.models.mini.vocabulary import build_tokenizer
from imgdiffd.models.mini.world import HELD_OUT_SEED, PICTURE_PX, PLACES, draw_pair

REGION = "Please provide a clear description for this region: [{}]."
DIFFERENCE = (
    "Analyse the left image and the right image (separated by the black vertical bar). The detail within the red "
    "bounding box in the left image is: {}, while the detail within the red bounding box in the right image is: {}. "
    "What is their difference? Answer with a few concise sentences."
)
ANSWER = "The left image shows {}, while the right image shows {}."
IMAGE = "<image>"
GRID = [[PICTURE_PX, PICTURE_PX], [PICTURE_PX, 2 * PICTURE_PX], [2 * PICTURE_PX, PICTURE_PX]]
BAR_PX = 4
CONTEXT = 1024
SEEN, SCENES, PAIRS = 64, 20, 6


@dataclass(frozen=True)
class Asked:
    """One picture's questions and answers, as text after the picture."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]


def build() -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """An untrained model and its processor."""
    text = " ".join([REGION, DIFFERENCE, ANSWER])
    words = "".join(c if c.isalpha() else " " for c in text).split()
    numbers = [*(f"{n:02d}" for n in range(100)), *map(str, range(10))]
    tokenizer = build_tokenizer(
        [*train_rewriter.words(), *words, *PLACES, *numbers, "[", "]."], special=[IMAGE], max_length=CONTEXT
    )
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=vision.WIDTH,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **vision.TOWER},
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=GRID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    images = LlavaNextImageProcessor(
        size={"shortest_edge": PICTURE_PX},
        crop_size={"height": PICTURE_PX, "width": PICTURE_PX},
        image_grid_pinpoints=GRID,
        image_mean=vision.MEAN,
        image_std=vision.STD,
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=vision.PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    model = LlavaNextForConditionalGeneration(config)
    model.generation_config.update(
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    return model, processor


def prompt(processor: LlavaNextProcessor, question: str) -> str:
    """The chat text of one question about one picture, up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    message = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


def region_question(box: NDArray[np.float32]) -> str:
    """Coordinates in 0–1, two decimals, as the pipeline writes them."""
    return REGION.format(", ".join(f"{v / PICTURE_PX:.2f}" for v in box))


def region_tasks(rng: np.random.Generator, data: Scenes, chosen: NDArray[np.int64]) -> list[Asked]:
    """Per scene one question for each thing and one for a piece of ground."""
    empty = scenes.empty_boxes(rng, data, chosen)
    tasks = []
    for row, index in enumerate(chosen):
        count = data.count(index)
        boxes = scenes.jittered(rng, data.boxes[index, :count], shift=0.1, grow_px=2.0)
        asked = [(box, region_name(*data.name(index, slot))) for slot, box in enumerate(boxes)]
        if not np.isnan(empty[row, 0]) and (rng.random() < 0.4 or not asked):
            asked.append((empty[row], ground_name(PLACES[data.places[index]])))
        tasks.append(Asked(tuple(region_question(box) for box, _ in asked), tuple(name for _, name in asked)))
    return tasks


def joined_pair(rng: np.random.Generator) -> tuple[NDArray[np.uint8], Asked]:
    """A pair side by side with a bar between, red boxes around what changed, and the question about it."""
    before, after, index = draw_pair(rng)
    both = [before.things[index], after.things[index]]
    box = np.array(both[int(rng.integers(2))].box) + np.array([-1, -1, 1, 1]) * rng.integers(1, 4)
    x1, y1, x2, y2 = (int(v) for v in box.round().clip(0, PICTURE_PX - 1))
    width = int(rng.integers(1, 3))
    sides = [np.ascontiguousarray(scene.image) for scene in (before, after)]
    for side in sides:
        cv2.rectangle(side, (x1, y1), (x2, y2), (255, 0, 0), width)
    names = [region_name(thing.noun, thing.colour) for thing in both]
    if rng.random() < 0.15:
        names[int(rng.integers(2))] = ground_name(before.place)
    if rng.random() < 0.5:
        sides.reverse()
        names.reverse()
    bar = np.zeros((PICTURE_PX, BAR_PX, 3), np.uint8)
    picture = np.concatenate([sides[0], bar, sides[1]], axis=1)
    return picture, Asked((DIFFERENCE.format(*names),), (ANSWER.format(*names),))


def packed(processor: LlavaNextProcessor, tasks: list[Asked], image_tokens: int) -> dict[str, torch.Tensor]:
    """Ids, labels, positions and the mask under which a question sees the picture and itself, but no other question."""
    tokenizer: PreTrainedTokenizerFast = processor.tokenizer
    rows = []
    for task in tasks:
        head, _ = prompt(processor, "").split(IMAGE)
        ids = tokenizer.encode(head) + [processor.image_token_id] * image_tokens
        labels, branch, positions = [-100] * len(ids), [0] * len(ids), list(range(len(ids)))
        start = len(ids)
        for number, (question, answer) in enumerate(zip(task.questions, task.answers, strict=True), start=1):
            asked = tokenizer.encode(prompt(processor, question).split(IMAGE)[1])
            said = [*tokenizer.encode(f" {answer}"), tokenizer.eos_token_id]
            ids += asked + said
            labels += [-100] * len(asked) + said
            branch += [number] * (len(asked) + len(said))
            positions += range(start, start + len(asked) + len(said))
        rows.append((ids, labels, branch, positions))
    longest = max(len(row[0]) for row in rows)
    fills = (tokenizer.pad_token_id, -100, -1, 0)
    ids, labels, branch, positions = (
        torch.tensor([row[k] + [fill] * (longest - len(row[k])) for row in rows]) for k, fill in enumerate(fills)
    )
    causal = torch.ones(longest, longest).tril().bool()
    seen = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
    mask = (causal & seen)[:, None]
    return {"ids": ids, "labels": labels, "positions": positions, "mask": mask}


def answer_loss(
    model: LlavaNextForConditionalGeneration, batch: dict[str, torch.Tensor], **pictures: Any
) -> tuple[torch.Tensor, float]:
    """The mean cross-entropy of the answers' tokens and the share that is right."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(
            input_ids=batch["ids"],
            **pictures,
            attention_mask=batch["mask"],
            position_ids=batch["positions"],
            use_cache=False,
        ).last_hidden_state
        wanted = batch["labels"][:, 1:]
        logits = model.lm_head(hidden[:, :-1][wanted != -100]).float()
    said = wanted[wanted != -100]
    return torch.nn.functional.cross_entropy(logits, said), float((logits.argmax(-1) == said).float().mean())


def look(
    sight: vision.Sight, data: Scenes, chosen: NDArray[np.int64], pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The last hidden patches of pictures in 0–1, their dense loss and the share of things whose noun they tell."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = sight.tower(vision.normalised(pixels), output_hidden_states=True).hidden_states[-1][:, 1:]
    targets = vision.patch_targets(data.labels[chosen], data.nouns[chosen], data.colours[chosen])
    dense, right = sight.loss(hidden.float(), *targets)
    return hidden, dense, right


def sight_loss(sight: vision.Sight, data: Scenes, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
    """One batch of the tower's own training: every patch says what it shows and where it is."""
    chosen = rng.integers(len(data), size=SEEN)
    _, dense, right = look(sight, data, chosen, scenes.roughened(rng, data.pixels(rng, chosen)))
    return dense, {"noun": right}


@torch.no_grad()
def balance_projector(model: LlavaNextForConditionalGeneration, hidden: torch.Tensor) -> None:
    """Starts the projector on standardised patches: their mean is ten times what sets one apart from another."""
    first = model.model.multi_modal_projector.linear_1
    mean, deviation = hidden.mean(dim=(0, 1)), hidden.std(dim=(0, 1))
    torch.nn.init.orthogonal_(first.weight)
    first.weight.div_(deviation)
    first.bias.copy_(-first.weight @ mean)
    torch.nn.init.orthogonal_(model.model.multi_modal_projector.linear_2.weight)


def packed_features(model: LlavaNextForConditionalGeneration, hidden: torch.Tensor) -> BaseModelOutputWithPooling:
    """What the model packs of square pictures, of which the whole and the only tile are the same: looked at once."""
    seen = model.model.multi_modal_projector(hidden)
    side = PICTURE_PX // vision.PATCH_PX
    newline = model.model.image_newline.expand(len(seen), side, 1, -1).to(seen.dtype)
    rows = torch.cat([seen.unflatten(1, (side, side)), newline], dim=2).flatten(1, 2)
    return BaseModelOutputWithPooling(pooler_output=list(torch.cat([seen, rows], dim=1)))


def loss_of(
    model: LlavaNextForConditionalGeneration,
    processor: LlavaNextProcessor,
    sight: vision.Sight,
    data: Scenes,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, dict[str, float]]:
    """One batch of regions, and in some steps one of pairs."""
    chosen = rng.integers(len(data), size=SCENES)
    hidden, dense, noun = look(sight, data, chosen, scenes.roughened(rng, data.pixels(rng, chosen)))
    side = PICTURE_PX // vision.PATCH_PX
    batch = packed(processor, region_tasks(rng, data, chosen), side * side + side * (side + 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = packed_features(model, hidden)
    loss, right = answer_loss(model, batch, mm_encoder_outputs={"image": seen})
    figures = {"region": loss.item(), "right": right, "noun": noun}
    loss = loss + 0.2 * dense
    if rng.random() < 0.25:
        pictures, tasks = zip(*[joined_pair(rng) for _ in range(PAIRS)], strict=True)
        images = processor.image_processor(
            images=list(pictures), return_tensors="pt", input_data_format="channels_last"
        )
        batch = packed(processor, list(tasks), side * side + side * (2 * side + 1))
        other, copied = answer_loss(
            model, batch, pixel_values=images["pixel_values"], image_sizes=images["image_sizes"]
        )
        loss, figures = loss + other, {**figures, "difference": other.item(), "copied": copied}
    return loss, figures


@torch.inference_mode()
def answers(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, images: list[Any], questions: list[str]
) -> list[str]:
    """Greedy answers through the processor, left-padded with masks, 64 tokens at most."""
    said: list[str] = []
    for begin in range(0, len(images), 32):
        texts = [prompt(processor, question) for question in questions[begin : begin + 32]]
        batch = processor(images=images[begin : begin + 32], text=texts, padding=True, return_tensors="pt")
        ids = model.generate(**batch, do_sample=False, max_new_tokens=64)
        said += processor.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in said]


def measure(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, data: Scenes, pairs: int = 40
) -> dict[str, float]:
    """Shares of held-out regions described exactly, with the right noun, the right colour; of pairs told as wanted."""
    rng = np.random.default_rng(0)
    tasks = region_tasks(rng, data, np.arange(len(data)))
    asked = [
        (data.images[row], q, a)
        for row, task in enumerate(tasks)
        for q, a in zip(task.questions, task.answers, strict=True)
    ]
    said = answers(model, processor, [image for image, _, _ in asked], [q for _, q, _ in asked])
    words = [(text.split(), wanted.split()) for text, (_, _, wanted) in zip(said, asked, strict=True)]
    joined = [joined_pair(np.random.default_rng(HELD_OUT_SEED + n)) for n in range(pairs)]
    told = answers(model, processor, [image for image, _ in joined], [task.questions[0] for _, task in joined])
    print(*told[:3], sep="\n")
    return {
        "exact": float(np.mean([a == b for a, b in words])),
        "noun": float(np.mean([a[-1:] == b[-1:] for a, b in words])),
        "colour": float(np.mean([a[1:2] == b[1:2] for a, b in words if len(b) == 3])),
        "difference": float(np.mean([text == task.answers[0] for text, (_, task) in zip(told, joined, strict=True)])),
    }


def main(argv: list[str] | None = None) -> None:
    """Train, measure and export; start from the CLIP in the bundle."""
    parser = training.arguments(__doc__ or "", steps=900)
    parser.add_argument("--sight-steps", type=int, default=600, help="steps of the vision tower alone (default 600)")
    options = parser.parse_args(argv)
    training.start(options)
    (model, processor), data = build(), scenes.cached()
    clip = CLIPModel.from_pretrained(training.BUNDLE / "clip", dtype=torch.float32)
    model.model.vision_tower.load_state_dict(clip.vision_model.state_dict(), strict=False)
    sight = vision.Sight(model.model.vision_tower)
    training.train("sight", sight, lambda rng, _: sight_loss(sight, data, rng), steps=options.sight_steps, lr=1.5e-3)
    chosen = np.arange(SEEN)
    with torch.no_grad():
        hidden, _, _ = look(sight, data, chosen, data.pixels(np.random.default_rng(0), chosen))
    balance_projector(model, hidden.float())
    both = torch.nn.ModuleDict({"model": model, "heads": torch.nn.ModuleList([sight.names, sight.places])})
    training.train(
        "captioner", both, lambda rng, _: loss_of(model, processor, sight, data, rng), steps=options.steps, lr=1.5e-3
    )
    with training.replaced_folder(training.BUNDLE / "captioner") as folder:
        model.half().save_pretrained(folder)
        processor.save_pretrained(folder)
    saved = LlavaNextForConditionalGeneration.from_pretrained(training.BUNDLE / "captioner", dtype=torch.float32)
    print(
        "captioner:",
        measure(saved, LlavaNextProcessor.from_pretrained(training.BUNDLE / "captioner"), scenes.held_out(100)),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
