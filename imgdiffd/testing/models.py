"""Models without weights: each looks at colours and words, so that tests can predict scores, and records its calls."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from imgdiffd.method.messages import Box
from imgdiffd.method.profile_sections import Generate, ImageTextKind, Locate, Removal, Rewrite
from imgdiffd.models.eraser import Hole
from imgdiffd.models.judge import Judgement
from imgdiffd.models.loading import Models
from imgdiffd.models.painter import Images as Pair
from imgdiffd.models.painter import PairPrompt, Watch
from imgdiffd.models.rewriter import Answer

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def canvas(colour: str, width: int, height: int, *patches: tuple[str, Box]) -> Tensor:
    """An image, uint8 [3, height, width], of one of COLOURS or "black", with boxes painted on it in order."""
    image = torch.zeros((3, height, width), dtype=torch.uint8)
    for name, (x1, y1, x2, y2) in ((colour, (0, 0, width, height)), *patches):
        image[:, y1:y2, x1:x2] = torch.tensor(COLOURS.get(name, (0, 0, 0)), dtype=torch.uint8).view(3, 1, 1)
    return image


def _mean(image: Tensor, box: Box) -> Tensor:
    x1, y1, x2, y2 = box
    return image[:, y1:y2, x1:x2].float().mean(dim=(1, 2))


class FakeTokenizer:
    """One token per word, and two end marks."""

    def __call__(self, text: str, *, truncation: bool) -> dict[str, list[int]]:
        """Token ids, as a CLIP tokenizer gives them."""
        assert not truncation
        return {"input_ids": list(range(len(text.split()) + 2))}


class FakeRewriter:
    """Answers with `answer(caption)`; `asked` records captions and seeds."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, int]] = []

    def rewrite(self, captions: Sequence[str], seeds: Sequence[int], rewrite: Rewrite) -> list[Answer]:
        """`answer(caption)` for each caption."""
        self.asked += zip(captions, seeds, strict=True)
        return [self._answer(caption) for caption in captions]


class FakePainter:
    """Paints both images with the same noise, drawn from the seed, and a red and a blue square.

    `previews` gives the previews of a pair by its first caption; no others are looked at half-painted.
    """

    def __init__(self, previews: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({})) -> None:
        self.asked: list[PairPrompt] = []
        self._previews = previews

    def paint_pairs(self, pairs: Sequence[PairPrompt], generate: Generate) -> list[tuple[Tensor, Tensor]]:
        """One pair of images per prompt."""
        self.asked += pairs
        return [self._paint(pair.seed, generate.picture_px) for pair in pairs]

    def paint_watched(self, pairs: Sequence[PairPrompt], generate: Generate, watch: Watch | None) -> list[Pair | None]:
        """As `paint_pairs`, with None for each pair that `watch` gives up."""
        seen = [(pair, self._previews.get(pair.caption1)) for pair in pairs]
        going = [watch is None or previews is None or watch(pair, previews) for pair, previews in seen]
        painted = self.paint_pairs(pairs, generate)
        return [images if goes else None for images, goes in zip(painted, going, strict=True)]

    @staticmethod
    def _paint(seed: int, side: int) -> tuple[Tensor, Tensor]:
        noise = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (3, side, side), generator=noise, dtype=torch.uint8).repeat(2, 1, 1, 1)
        for image, colour in zip(images, ("red", "blue"), strict=True):
            image[:, 4:12, 4:12] = torch.tensor(COLOURS[colour], dtype=torch.uint8).view(3, 1, 1)
        return images[0], images[1]


class FakeSegmenter:
    """Finds the given `boxes`: one list for each image, in the order in which the images are shown."""

    def __init__(self, *boxes: Sequence[Box]) -> None:
        self._boxes = list(boxes)
        self.shown: list[Tensor] = []

    def boxes(self, images: Sequence[Tensor], locate: Locate) -> list[list[Box]]:
        """The next list of boxes for each image."""
        self.shown += images
        return [list(self._boxes.pop(0)) for _ in images]

    def masks(self, images: Sequence[Tensor], removal: Removal) -> list[list[tuple[Box, Tensor]]]:
        """As `boxes`, each box with a mask that fills it."""
        self.shown += images
        return [[(box, _filled(image, box)) for box in self._boxes.pop(0)] for image in images]


def _filled(image: Tensor, box: Box) -> Tensor:
    mask = torch.zeros(image.shape[1:], dtype=torch.bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


class FakeEraser:
    """Paints the holes green instead of erasing them; `asked` records them."""

    def __init__(self) -> None:
        self.asked: list[Hole] = []

    def erase(self, holes: Sequence[Hole], removal: Removal) -> list[Tensor]:
        """One image per hole."""
        self.asked += holes
        green = torch.tensor(COLOURS["green"], dtype=torch.uint8).view(3, 1, 1)
        return [torch.where(hole.mask, green, hole.image) for hole in holes]


class FakeClip:
    """An image's vector is its mean colour, a text's its count of each of COLOURS. Black or no colour gives NaN."""

    def __init__(self) -> None:
        self.crops: list[Box] = []
        self.calls: list[list[Box]] = []

    def embed_images(self, images: Sequence[Tensor]) -> Tensor:
        """Unit vectors, [n, 3]."""
        return self._unit([_mean(image, (0, 0, image.shape[2], image.shape[1])) for image in images])

    def embed_crops(self, image: Tensor, boxes: Sequence[Box]) -> Tensor:
        """Unit vectors, [n, 3]; `crops` records the boxes, `calls` those of each call."""
        self.crops += boxes
        self.calls.append(list(boxes))
        return self._unit([_mean(image, box) for box in boxes])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, [n, 4]."""
        counts = [[float(text.split().count(colour)) for colour in COLOURS] for text in texts]
        return self._unit([torch.tensor(each) for each in counts])

    @staticmethod
    def _unit(rows: Sequence[Tensor]) -> Tensor:
        vectors = torch.stack(list(rows))
        unit: Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
        return unit


class FakeBlip:
    """Scores 0.9 if the text names the colour at the crop's centre, else 0.1; NaN for the text "nothing".

    `asked` records that colour, the box and the text; `calls` the boxes of each call.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Box, str]] = []
        self.calls: list[list[Box]] = []

    def score(self, image: Tensor, boxes: Sequence[Box], texts: Sequence[str], kind: ImageTextKind) -> list[float]:
        """One score per box and its text."""
        self.calls.append(list(boxes))
        return [self._score(image, box, text) for box, text in zip(boxes, texts, strict=True)]

    def _score(self, image: Tensor, box: Box, text: str) -> float:
        middle = image[:, (box[1] + box[3]) // 2, (box[0] + box[2]) // 2].tolist()
        colour = next((name for name, value in COLOURS.items() if list(value) == middle), "black")
        self.asked.append((colour, box, text))
        if text == "nothing":
            return float("nan")
        return 0.9 if colour in text.split() else 0.1


class FakeCaptioner:
    """Answers with `answer(image, question)`; `asked` records each image with its questions, `told` system prompts."""

    def __init__(self, answer: Callable[[Tensor, str], str]) -> None:
        self._answer = answer
        self.asked: list[tuple[Tensor, list[str]]] = []
        self.told: list[str] = []

    def answer(
        self,
        images: Sequence[Tensor],
        questions: Sequence[Sequence[str]],
        max_new_tokens: int,
        system_prompt: str = "",
    ) -> list[list[str]]:
        """The answers to each image's questions, in order."""
        self.told.append(system_prompt)
        self.asked += [(image, list(asked)) for image, asked in zip(images, questions, strict=True)]
        return [
            [self._answer(image, question) for question in asked]
            for image, asked in zip(images, questions, strict=True)
        ]


class FakeJudge:
    """Judges with `say(image)`; `asked` records images and questions."""

    def __init__(self, say: Callable[[Tensor], Judgement]) -> None:
        self._say = say
        self.asked: list[tuple[Tensor, str]] = []

    def judge(self, images: Sequence[Tensor], question: str, max_new_tokens: int) -> list[Judgement]:
        """One judgement per image."""
        self.asked += [(image, question) for image in images]
        return [self._say(image) for image in images]


def fake_models(**roles: object) -> Models:
    """A worker's models with the given fakes, named by role, and no other roles."""
    return Models(FakeTokenizer(), **cast(dict[str, Any], roles))
