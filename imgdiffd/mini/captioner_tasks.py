"""Questions about regions and pairs with their answers, for training and measuring the captioner, packed into rows."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlavaNextProcessor, PreTrainedTokenizerFast

from imgdiffd.mini import scenes, vision
from imgdiffd.mini.scenes import Scenes, ground_name, region_name
from imgdiffd.mini.world import IMAGE_PX, PLACES, draw_names, draw_pair

REGION = "Please provide a clear description for this region: [{}]."
DIFFERENCE = (
    "Analyse the left image and the right image (separated by the black vertical bar). The detail within the red "
    "bounding box in the left image is: {}, while the detail within the red bounding box in the right image is: {}. "
    "What is their difference? Answer with a few concise sentences."
)
ANSWER = "The left image shows {}, while the right image shows {}."
IMAGE = "<image>"
GRID = [[IMAGE_PX, IMAGE_PX], [IMAGE_PX, 2 * IMAGE_PX], [2 * IMAGE_PX, IMAGE_PX]]
BAR_PX = 4


@dataclass(frozen=True)
class Asked:
    """One image's questions and answers, as text after the image."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    patches: tuple[int, ...] = ()
    """Per question the patch in the middle of its box, where there is one: only training uses it."""


def prompt(processor: LlavaNextProcessor, question: str) -> str:
    """The chat text of one question about one image, up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    message = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


def region_question(box: NDArray[np.float32]) -> str:
    """The question about a box in pixels, its coordinates in 0–1 with two decimals, as the pipeline writes them."""
    return REGION.format(", ".join(f"{v / IMAGE_PX:.2f}" for v in box))


def region_tasks(rng: np.random.Generator, data: Scenes, chosen: NDArray[np.int64]) -> list[Asked]:
    """For each scene, one question about each object and sometimes one about a piece of ground."""
    empty = scenes.empty_boxes(rng, data, chosen)
    tasks = []
    for row, index in enumerate(chosen):
        count = data.count(index)
        boxes = scenes.jittered(rng, data.boxes[index, :count], shift=0.1, grow_px=2.0)
        asked = [(box, region_name(*data.name(index, slot))) for slot, box in enumerate(boxes)]
        if not np.isnan(empty[row, 0]) and (rng.random() < 0.4 or not asked):
            asked.append((empty[row], ground_name(PLACES[data.places[index]])))
        side = IMAGE_PX // vision.PATCH_PX
        middles = [np.clip((box[:2] + box[2:]) // (2 * vision.PATCH_PX), 0, side - 1) for box, _ in asked]
        tasks.append(
            Asked(
                tuple(region_question(box) for box, _ in asked),
                tuple(name for _, name in asked),
                tuple(int(y * side + x) for x, y in middles),
            )
        )
    return tasks


def joined_pair(rng: np.random.Generator) -> tuple[NDArray[np.uint8], Asked]:
    """A pair side by side with a bar between, red boxes around what changed, and the question about the difference."""
    before, after, index = draw_pair(rng)
    both = [before.objects[index], after.objects[index]]
    box = np.array(both[int(rng.integers(2))].box) + np.array([-1, -1, 1, 1]) * rng.integers(1, 4)
    x1, y1, x2, y2 = (int(v) for v in box.round().clip(0, IMAGE_PX - 1))
    width = int(rng.integers(1, 3))
    sides = [np.ascontiguousarray(scene.image) for scene in (before, after)]
    for side in sides:
        cv2.rectangle(side, (x1, y1), (x2, y2), (255, 0, 0), width)
    names = [region_name(each.noun, each.colour) for each in both]
    if rng.random() < 0.15:
        names[int(rng.integers(2))] = ground_name(before.place)
    if rng.random() < 0.5:
        sides.reverse()
        names.reverse()
    bar = np.zeros((IMAGE_PX, BAR_PX, 3), np.uint8)
    image = np.concatenate([sides[0], bar, sides[1]], axis=1)
    return image, Asked((DIFFERENCE.format(*names),), (ANSWER.format(*names),))


def told_pair(rng: np.random.Generator) -> Asked:
    """The question about a pair without its image: the answer needs only what the question says of both sides."""
    names = []
    for _ in range(2):
        noun, colour = draw_names(rng, 1)[0]
        names.append(region_name(noun, colour) if rng.random() < 0.9 else ground_name(str(rng.choice(PLACES))))
    return Asked((DIFFERENCE.format(*names),), (ANSWER.format(*names),))


def packed(processor: LlavaNextProcessor, tasks: list[Asked], image_tokens: int) -> dict[str, torch.Tensor]:
    """Ids, labels, positions and the mask under which a question sees the image and itself, but no other question."""
    tokenizer: PreTrainedTokenizerFast = processor.tokenizer
    rows = []
    for task in tasks:
        head, _ = prompt(processor, "").split(IMAGE)
        ids = tokenizer.encode(head) + [processor.image_token_id] * image_tokens
        labels, branch, positions = [-100] * len(ids), [0] * len(ids), list(range(len(ids)))
        where = [-100] * len(ids)
        start = len(ids)
        for number, (question, answer) in enumerate(zip(task.questions, task.answers, strict=True), start=1):
            asked = tokenizer.encode(prompt(processor, question).split(IMAGE)[1])
            said = [*tokenizer.encode(f" {answer}"), tokenizer.eos_token_id]
            ids += asked + said
            labels += [-100] * len(asked) + said
            patch = task.patches[number - 1] if task.patches else -100
            where += [-100] * (len(asked) - 1) + [patch] * (1 + len(said))
            branch += [number] * (len(asked) + len(said))
            positions += range(start, start + len(asked) + len(said))
        rows.append((ids, labels, branch, positions, where))
    longest = max(len(row[0]) for row in rows)
    fills = (tokenizer.pad_token_id, -100, -1, 0, -100)
    id_rows, label_rows, branches, position_rows, where_rows = (
        torch.tensor([row[k] + [fill] * (longest - len(row[k])) for row in rows]) for k, fill in enumerate(fills)
    )
    causal = torch.ones(longest, longest).tril().bool()
    seen = (branches[:, :, None] == branches[:, None, :]) | (branches[:, None, :] == 0)
    return {
        "ids": id_rows,
        "labels": label_rows,
        "positions": position_rows,
        "mask": (causal & seen)[:, None],
        "where": where_rows,
    }
