"""Tiny captioners whose tokenizers know yes and no, so that they can be asked to judge."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.tiny import captioners as tiny_captioners
from tests.tiny import models as tiny_models

WORDS = ("yes", "no", "Yes", "No")


@contextmanager
def knowing_yes_and_no() -> Iterator[None]:
    """What the tiny models' modules save within it has WORDS in its vocabulary."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (tiny_models, tiny_captioners):
            patch.setattr(module, "WORDS", (*module.WORDS, *WORDS))
        patch.setitem(tiny_models.TEXT, "vocab_size", tiny_models.TEXT["vocab_size"] + len(WORDS))
        yield


def save_judge(folder: Path, family: str = "llava_next") -> None:
    """A judge of that family."""
    with knowing_yes_and_no():
        tiny_captioners.FAMILIES[family](folder)
