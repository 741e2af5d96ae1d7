"""Trains the miniature rewriter, a Llama of 1 M parameters that swaps one noun of a caption when asked in a chat.

Four layers of width 128 over whole words of the world and bytes for any other text. Sampled at temperature 0.8 and
top-p 0.95 it changes exactly one noun in 99 % of held-out captions; other captions become junk that ends.
"""

import re
import sys
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from imgdiffd.mini import training
from imgdiffd.mini.vocabulary import build_tokenizer
from imgdiffd.mini.world import COLOURS, HELD_OUT_SEED, NOUNS, PLACES, caption_of, draw_names, parse_caption

PROMPTS = (
    'Here is a sentence: "{}". Please replace one entity in this sentence with another entity, such as an animal, '
    "a vehicle, or a piece of furniture. Please only answer with the replaced sentence.",
    "Here is a sentence: '{}'. Please only replace one of the objects in this sentence with another object.",
)
CONTEXT = 1024
BATCH = 40
FOREIGN_EVERY = 8
"""One step in this many has a batch of invented words, so that the model learns to copy bytes, not only words."""
COPYING = 0.35
"""Until this share of the steps some answers repeat the caption: all in its first half, then ever fewer."""
KEPT, CHANGED = MARKS = ("<kept>", "<changed>")
"""Special tokens, one of which stands before each noun of an answer. Without them every noun is a gamble of its own,
and half of the answers change none or several. Decoding drops them as it does every special token."""


def words() -> list[str]:
    """Every word of the world's captions and of the chat format and prompts around them."""
    captions = [caption_of([("ball", "red"), ("fish", "orange"), ("cup", "blue")], place) for place in PLACES]
    text = " ".join([*captions, *PROMPTS, "USER ASSISTANT", *NOUNS, *COLOURS])
    return [word for word in "".join(c if c.isalpha() else " " for c in text).split() if len(word) > 1]


def rewritten(rng: np.random.Generator) -> tuple[str, str]:
    """A caption and its rewrite: one noun, at a uniform position, becomes a uniform noun that was not there.

    The rewrite has its marks.
    """
    names = draw_names(rng, int(rng.choice((1, 2, 3), p=(0.25, 0.4, 0.35))))
    place = PLACES[rng.integers(len(PLACES))]
    index = int(rng.integers(len(names)))
    others = [noun for noun in NOUNS if noun not in {name for name, _ in names}]
    edited = [*names[:index], (others[rng.integers(len(others))], names[index][1]), *names[index + 1 :]]
    return caption_of(names, place), marked(caption_of(edited, place), others)


def marked(rewrite: str, changed: Collection[str]) -> str:
    """The rewrite with a mark before each noun: `CHANGED` before those in `changed`, else `KEPT`."""
    marks = {noun: CHANGED if noun in changed else KEPT for noun in NOUNS}
    return re.sub(rf" ({'|'.join(NOUNS)})\b", lambda found: f"{marks[found[1]]}{found[0]}", rewrite)


def foreign(rng: np.random.Generator) -> tuple[str, str]:
    """A sentence of invented words and the same with one of them replaced by a noun of the world."""
    known = ("a", "the", "on", "in", "and", "with", *NOUNS)
    made = ["".join(rng.choice(list("etaoinshrdlucmfgpbywkv"), rng.integers(2, 8))) for _ in range(rng.integers(4, 9))]
    text = [str(rng.choice(known)) if rng.random() < 0.4 else word for word in made]
    text[0] = text[0].capitalize()
    stop = "." if rng.random() < 0.5 else ""
    swapped = list(text)
    swapped[rng.integers(1, len(text))] = NOUNS[rng.integers(len(NOUNS))]
    return " ".join(text) + stop, " ".join(swapped) + stop


def encoded(tokenizer: PreTrainedTokenizerFast, prompt: str, caption: str, answer: str) -> tuple[list[int], list[int]]:
    """The token ids of question and answer, and the labels, which are -100 for the question's tokens."""
    question = [{"role": "user", "content": prompt.format(caption)}]
    text = str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
    asked, said = (
        tokenizer.encode(text),
        [*tokenizer.encode(f" {answer}"), tokenizer.eos_token_id],
    )
    return asked + said, [-100] * len(asked) + said


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    """The rows as one tensor, `value` at their ends."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def build() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """An untrained model and its tokenizer."""
    tokenizer = build_tokenizer(words(), special=MARKS, max_length=CONTEXT)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        # Tied, the nouns' vectors fall together while all nouns are equally likely, and no noun can be copied any more.
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config), tokenizer


def measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, captions: int = 200) -> dict[str, float]:
    """The share of held-out captions whose sampled answer changes exactly one noun and nothing else, per prompt."""
    figures = {}
    for number, prompt in enumerate(PROMPTS):
        rng = np.random.default_rng(HELD_OUT_SEED + number)
        asked = [rewritten(rng)[0] for _ in range(captions)]
        answers = answer(model, tokenizer, [prompt.format(caption) for caption in asked])
        figures[f"valid_{number}"] = float(
            np.mean([one_noun_changed(*pair) for pair in zip(asked, answers, strict=True)])
        )
        print(*[f"  {a} -> {b}" for a, b in list(zip(asked, answers, strict=True))[:5]], sep="\n")
    return figures


def answer(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: list[str]) -> list[str]:
    """The sampled answers, at the pipeline's temperature 0.8, top-p 0.95 and 128 tokens."""
    texts = [
        str(tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True))
        for q in questions
    ]
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    torch.manual_seed(1)
    with torch.inference_mode():
        ids = model.generate(**batch, do_sample=True, temperature=0.8, top_p=0.95, top_k=0, max_new_tokens=128)
    said = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in said]


def one_noun_changed(before: str, after: str) -> bool:
    """Whether `after` is `before` with exactly one noun replaced by one that was not there."""
    old, new = parse_caption(before), parse_caption(after)
    if old is None or new is None or len(old[0]) != len(new[0]) or old[1] != new[1]:
        return False
    changed = [(a, b) for a, b in zip(old[0], new[0], strict=True) if a != b]
    return len(changed) == 1 and changed[0][0][1] == changed[0][1][1] and changed[0][1][0] not in dict(old[0])


def main(argv: list[str] | None = None) -> None:
    """Train, measure and export."""
    options = training.arguments(__doc__ or "", steps=1200).parse_args(argv)
    training.start(options)
    model, tokenizer = build()

    def loss_at(rng: np.random.Generator, progress: float) -> tuple[torch.Tensor, dict[str, float]]:
        strange = rng.integers(FOREIGN_EVERY) == 0
        pairs = [foreign(rng) if strange else rewritten(rng) for _ in range(BATCH // 3 if strange else BATCH)]
        copied = rng.random(len(pairs)) < 2 * (1 - progress / COPYING)
        pairs = [(old, marked(old, ()) if same else new) for (old, new), same in zip(pairs, copied, strict=True)]
        asked = PROMPTS[rng.integers(2)]
        rows = [encoded(tokenizer, asked, *pair) for pair in pairs]
        ids, labels = (padded([a for a, _ in rows], tokenizer.pad_token_id), padded([b for _, b in rows], -100))
        hidden = model.model(input_ids=ids, attention_mask=ids != tokenizer.pad_token_id).last_hidden_state
        said = labels[:, 1:] != -100
        logits = model.lm_head(hidden[:, :-1][said])
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:][said])
        hits: NDArray[np.bool_] = (logits.argmax(-1) == labels[:, 1:][said]).numpy()
        return loss, {"hit": float(hits.mean())}

    training.train("rewriter", model, loss_at, steps=options.steps, lr=2e-3)
    model.generation_config.update(do_sample=True, temperature=0.8, top_p=0.95)
    with training.replaced_folder(training.BUNDLE / "rewriter") as folder:
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    saved = LlamaForCausalLM.from_pretrained(training.BUNDLE / "rewriter", dtype=torch.float32)
    print("rewriter:", measure(saved, PreTrainedTokenizerFast.from_pretrained(training.BUNDLE / "rewriter")))


if __name__ == "__main__":
    main(sys.argv[1:])
