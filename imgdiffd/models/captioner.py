"""The captioner: an image-text-to-text model that answers questions about images (paper, sections 3.3 and 3.4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from imgdiffd.errors import StageError
from imgdiffd.kernels.compile import attending_layers, parts_beside_attention
from imgdiffd.kernels.step_graph import StepGraph
from imgdiffd.models.image_prompts import ImagePrompt, ImagePrompts
from imgdiffd.models.sampling import end_tokens, plain_generation
from imgdiffd.models.shared_prefix import PassShape, SharedPass, let_go, let_share

_LENGTH_STEP = 16  # questions are padded to a multiple of this, so that few shapes occur
_SLOTS = (1, 2, 5)  # questions that an image is asked side by side, at most as many as the paper keeps regions
_TRIED = ("What is this?", "Where in the picture is it? Answer in a few words.")  # of unequal length
# How far the logits of a shared prefix may be from those of whole questions, as a share of their spread. Rounding in
# each precision through some forty layers stays well below this, a wrong mask or position well above.
_TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}


@dataclass(frozen=True, slots=True)
class _Shown:
    image: int
    prompt: ImagePrompt


class Captioner:
    """Answers greedily. An image is read and held once, however many questions are asked about it.

    A pass has exactly `rows_per_pass` images, including spare rows, each with one, two or five slots for questions and
    as many turns as its questions need. So every shape that an answer is computed in depends only on its own image and
    the questions about it.
    """

    def __init__(
        self, model: Any, processor: Any, rows_per_pass: int, note: Callable[[str], None] = lambda _: None
    ) -> None:
        """Tries the model on a small image. Where sharing its prefix is impossible or gives other logits than asking
        each question whole, every question will be asked whole, and `note` hears why.
        """
        self._model, self._rows = model, rows_per_pass
        self._prompts = ImagePrompts(processor, model.device, model.dtype)
        self._ends = end_tokens(model, processor.tokenizer)
        self._context = int(model.config.get_text_config().max_position_embeddings)
        self._steps = StepGraph("the captioner", _step)
        reason = self._refusal()
        self._shares_prefix = not reason
        if reason:
            let_go(model)
            note(f"the captioner reads an image again for each question: {reason}")

    def repeated_blocks(self) -> list[nn.Module]:
        """What is worth compiling: norms and feed-forwards. A whole layer would write into the cache."""
        return parts_beside_attention(attending_layers(self._model))

    def graph_steps(self, say: Callable[[str], None]) -> None:
        """Captures the steps after each pass's first as CUDA graphs from now on; `say` hears if that fails."""
        self._steps.enable(say)

    def plain_steps(self) -> None:
        """Captures nothing from now on."""
        self._steps.disable()

    @torch.inference_mode()
    def answer(
        self,
        images: Sequence[Tensor],
        questions: Sequence[Sequence[str]],
        max_new_tokens: int,
        system_prompt: str = "",
    ) -> list[list[str]]:
        """Each image's answers, in the order of its questions, without leading and trailing white space.

        Images are uint8 [3, H, W]. An answer that has not ended after `max_new_tokens` is cut there. Raises
        StageError where image, question and answer exceed the model's context or the chat template does not take the
        system prompt, and whatever the model raises.
        """
        answers = [[""] * len(asked) for asked in questions]
        waiting: dict[PassShape, list[_Shown]] = {}
        for index, (image, asked) in enumerate(zip(images, questions, strict=True)):
            if not asked:
                continue
            if not self._shares_prefix:
                answers[index] = [
                    self._answer_whole(image, question, max_new_tokens, system_prompt) for question in asked
                ]
                continue
            prompt = self._prompts.cut(image, asked, system_prompt)
            self._check_fits(prompt.prefix + max(map(len, prompt.tokens)) + max_new_tokens)
            shape = self._shape(prompt, max_new_tokens)
            group = waiting.setdefault(shape, [])
            group.append(_Shown(index, prompt))
            if len(group) == self._rows:  # a full pass runs right away, so that few images wait in memory
                self._finish(shape, group, answers)
                group.clear()
        for shape, group in waiting.items():
            if group:
                self._finish(shape, group, answers)
        return answers

    def _check_fits(self, needed: int) -> None:
        if needed > self._context:
            raise StageError(
                f"the captioner reads {self._context} tokens, but image, question and answer need {needed}",
                hint="use smaller images, shorter answers or a captioner with a longer context",
            )

    def _shape(self, prompt: ImagePrompt, new_tokens: int) -> PassShape:
        width = -(-max(map(len, prompt.tokens)) // _LENGTH_STEP) * _LENGTH_STEP
        slots = next((slots for slots in _SLOTS if slots >= len(prompt.tokens)), _SLOTS[-1])
        return PassShape(self._rows, slots, prompt.prefix, width, new_tokens)

    def _finish(self, shape: PassShape, group: Sequence[_Shown], answers: list[list[str]]) -> None:
        """Puts the answers to all questions about the images of `group` into `answers`."""
        shared = SharedPass(self._model, shape)
        for row, shown in enumerate(group):
            shared.read(row, shown.prompt.inputs)
        for start in range(0, max(len(shown.prompt.tokens) for shown in group), shape.slots):
            turn = [shown.prompt.tokens[start : start + shape.slots] for shown in group]
            with self._steps.one_pass():
                decoded = self._decode(shared, shape, turn)
            for shown, said in zip(group, decoded, strict=True):
                answers[shown.image][start : start + len(said)] = map(self._prompts.read, said)

    def _decode(self, shared: SharedPass, shape: PassShape, turn: Sequence[list[list[int]]]) -> list[list[list[int]]]:
        """The new tokens of each question, row by row; stops when all answers have ended."""
        chosen = shared.begin(_filled(turn, shape)).float().argmax(-1)
        said = [[list[int]() for _ in row] for row in turn]
        while not self._take(said, chosen.tolist(), shape.new_tokens):
            chosen = self._steps(chosen, shared=shared)[0].float().argmax(-1)
        return said

    def _take(self, said: Sequence[Sequence[list[int]]], chosen: Sequence[Sequence[int]], most: int) -> bool:
        """Appends each open answer's newest token; returns whether all have ended or have `most` tokens."""
        going = False
        for answers, tokens in zip(said, chosen, strict=False):
            for answer, token in zip(answers, tokens, strict=False):
                if not answer or answer[-1] not in self._ends:
                    answer.append(token)
                    going = going or (token not in self._ends and len(answer) < most)
        return not going

    def _answer_whole(self, image: Tensor, question: str, max_new_tokens: int, system_prompt: str) -> str:
        inputs = self._prompts.whole(image, question, system_prompt)
        length = inputs["input_ids"].shape[1]
        self._check_fits(length + max_new_tokens)
        with plain_generation(self._model):
            made = self._model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                eos_token_id=sorted(self._ends) or None,
                pad_token_id=min(self._ends, default=0),
            )
        return self._prompts.read(made[0, length:].tolist())

    def _refusal(self) -> str:
        """Why this model cannot read an image once for all questions about it; empty where it can."""
        try:
            reason = let_share(self._model)
            if reason:
                return reason
            error = self._sharing_error()
        except torch.OutOfMemoryError:
            raise
        except Exception as failure:  # models and processors raise nearly any type on what they do not expect
            return " ".join(f"{type(failure).__name__}: {failure}".split())[:400]
        if error <= _TOLERANCES.get(self._model.dtype, 0.0):
            return ""
        return f"a shared image changes its logits by {error:.2g} of their spread"

    @torch.inference_mode()
    def _sharing_error(self) -> float:
        """How far two questions' first two logits are from those of whole prompts, as a share of their spread."""
        image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        prompt = self._prompts.cut(image, _TRIED)
        shape = replace(self._shape(prompt, 2), images=1)
        shared = SharedPass(self._model, shape)
        shared.read(0, prompt.inputs)
        first = shared.begin(_filled([prompt.tokens], shape))
        chosen = first.argmax(-1)
        found = torch.stack([first[0], shared.step(chosen)[0]], dim=1).float()  # [slots, 2, vocabulary]
        worst = 0.0
        for slot, question in enumerate(_TRIED):
            whole = self._prompts.longer(self._prompts.whole(image, question), int(chosen[0, slot]))
            plain = self._model(**whole, logits_to_keep=2, use_cache=False).logits[0].float()
            worst = max(worst, float((found[slot] - plain).std() / plain.std()))
        return worst


def _step(tokens: Tensor, *, shared: SharedPass) -> tuple[Tensor]:
    return (shared.step(tokens),)


def _filled(turn: Sequence[list[list[int]]], shape: PassShape) -> list[list[list[int]]]:
    """`turn` filled up to `shape`: spare slots and rows repeat its first question."""
    spare = next(row[0] for row in turn if row)
    filled = [[*row, *[spare] * (shape.slots - len(row))] for row in turn]
    return filled + [[spare] * shape.slots] * (shape.images - len(filled))
