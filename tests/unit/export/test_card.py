"""The data card: Hugging Face reads its head, and nothing in it can break its tables."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from imgdiffd.export.card import About, card
from imgdiffd.export.counts import Counts
from imgdiffd.export.sample import Choice, samples
from imgdiffd.method.profile import load_profile
from imgdiffd.status import Funnel, FunnelStep
from imgdiffd.store import BundleRow
from imgdiffd.store.rows import ModelRow
from tests.fakes.made_samples import MadeSamples, removal_row

FUNNEL = Funnel(steps=(FunnelStep(name="captions", count=1200, lost={"duplicate": 3}),))
BUNDLE = BundleRow("own|er\n", {"clip": ModelRow("o/clip@abc", "MIT", "x"), "blip": ModelRow("o/blip", "", "y")})
ABOUT = About("LLaVA-1.5", "export out --format llava", [load_profile("default")], [BUNDLE], FUNNEL)


def counted(tmp_path: Path) -> Counts:
    made = MadeSamples(tmp_path, [1, 2, 3])
    made.rows[1] = replace(made.rows[1], left=2)
    made.removals = [removal_row("left", 1), removal_row("left", 2), removal_row("right", 3)]
    counts = Counts()
    for sample in samples(made, Choice()):
        counts.note(sample)
    return counts


def test_hugging_face_reads_the_head_and_the_splits(tmp_path: Path) -> None:
    told = vars(DatasetCard(card(ABOUT, counted(tmp_path), {"train": "data/train-*.parquet"})).data)
    assert told["license"] == "other"
    assert told["size_categories"] == ["n<1K"]
    assert told["task_categories"] == ["visual-question-answering", "image-text-to-text"]
    assert told["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]


def test_the_card_tells_all_that_the_samples_follow_from(tmp_path: Path) -> None:
    text = card(ABOUT, counted(tmp_path), {})
    for part in (
        "3 replacement, 3 removal samples",
        "| replacement | 3 | 0 |",
        "From 3 captions.",
        "left/right 66.7 % / 33.3 %; A/B 66.7 % / 33.3 %",
        "| captions | 1,200 | duplicate 3 |",
        "2 objects are named in 9 region texts; 1 ordered pairs",
        "Most frequent pairs: cat → dog 3.",
        "| clip | o/clip@abc | MIT |",
        "| blip | o/blip | unknown |",
        "| seed | 0 |",
        "| pair.above | 0.9 |",
        "| locate.crop_cosine_below | 0.85 |",
        "imgdiffd export out --format llava",
    ):
        assert part in text, part
    assert "own&#124;er\\n" in text, "a name may hold what tables are made of"


@pytest.mark.parametrize("bundles", [[], [BUNDLE, BUNDLE]])
def test_models_are_listed_once_or_said_to_be_unknown(tmp_path: Path, bundles: list[BundleRow]) -> None:
    text = card(replace(ABOUT, bundles=bundles), Counts(), {})
    assert text.count("o/clip@abc") == min(1, len(bundles))
    assert ("was not recorded" in text) == (not bundles)
    assert "no samples" in text


def test_hard_negatives_are_called_wrong_on_purpose() -> None:
    counts = Counts()
    counts.reasons["description_mismatch"] = 1200
    assert "wrong on purpose" in card(ABOUT, counts, {})
    assert "description_mismatch 1,200" in card(ABOUT, counts, {})
