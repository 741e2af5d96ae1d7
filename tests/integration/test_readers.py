"""Exports read by what they are for: `datasets`, `webdataset`, TRL's collator and LLaMA-Factory's converter."""

import gc
import importlib
import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from imgdiffd.export.dataset import export_dataset
from imgdiffd.export.sample import Choice, samples
from imgdiffd.method.removal import QUESTION as WHICH_HAS
from tests.fakes.made_samples import MadeSamples, removal_row
from tests.reference.pages import ROOT

CAPTIONER = ROOT / "imgdiffd" / "mini" / "bundle" / "captioner"
WHEEL = os.environ.get("LLAMA_FACTORY_WHEEL", "")
BAR = " (separated by the black vertical bar)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSamples:
    """Ten samples and a removal sample of the miniature's size: 64 pixels, and a bar of 4."""
    made = MadeSamples(tmp_path_factory.mktemp("made"), range(1, 11))
    made.rows = [
        replace(row, width=64, height=64, bar_px=4, box=(8, 8, 40, 40), caption1=f"caption {row.item}",
                difference=f"The left image shows a cat, the right one {row.item} dogs.")
        for row in made.rows
    ]  # fmt: skip
    row = removal_row("right", item=20)
    made.removals = [replace(row, bar_px=4)]
    names = [name for each in made.rows for name in (each.left_image, each.right_image)]
    for number, name in enumerate([*names, row.sample.original, row.sample.erased]):
        Image.new("RGB", (64, 64), "blue" if number % 2 else "red").save(made.images / name)
    return made


def exported(made: MadeSamples, folder: Path, layout: str, **how: Any) -> Path:
    export_dataset(made, made.images, folder, layout=layout, choice=Choice(validation=0.3), **how)
    return folder


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets.load_dataset` without a network or a cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()

    def load(*given: Any, **more: Any) -> Any:
        return datasets.load_dataset(*given, cache_dir=str(tmp_path / "cache"), **more)

    return load


@pytest.mark.parametrize("shown", ["two", "joined"])
def test_datasets_shows_splits_and_images_of_parquet(
    made: MadeSamples, tmp_path: Path, loaded: Any, shown: str
) -> None:
    out = exported(made, tmp_path / "out", "parquet", shown=shown)
    splits = loaded(str(out))
    assert set(splits) == {"train", "validation"}
    expected = {each.key: each for each in samples(made, Choice(validation=0.3))}
    rows = [(split, row) for split in splits for row in splits[split]]
    assert {row["id"]: split for split, row in rows} == {key: each.split for key, each in expected.items()}
    assert {row["kind"] for _, row in rows} == {"replacement", "removal"}
    for _, row in rows:
        sample = expected[row["id"]]
        assert (row["answer"], row["box"]) == (sample.answer, list(sample.box))
        assert json.loads(row["scores"]) == sample.scores
        assert (BAR in row["question"]) == (shown == "joined")
        sizes = [row["left"].size, row["right"].size] if shown == "two" else [row["image"].size]
        assert sizes == ([(64, 64), (64, 64)] if shown == "two" else [(132, 64)])
    assert loaded("parquet", data_files=f"{out}/data/train-*.parquet", split="train", streaming=True).features


@pytest.mark.long  # importing TRL takes 20 CPU seconds
def test_trl_learns_exactly_the_answer(made: MadeSamples, tmp_path: Path, loaded: Any) -> None:
    from transformers import LlavaNextProcessor
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    out = exported(made, tmp_path / "out", "trl")
    rows = [row for split in loaded(str(out)).values() for row in split]
    assert len(rows) == 11
    assert not [row for row in rows if "<image>" in str(row["prompt"]) or len(row["images"]) != 1]
    processor = LlavaNextProcessor.from_pretrained(CAPTIONER)
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    answers = {each.key: each.answer for each in samples(made, Choice())}
    for row in rows[:2] + rows[-1:]:
        key = row.pop("id")
        batch = collator([row])
        learnt = batch["labels"][0]
        told = processor.tokenizer.decode(learnt[learnt != -100]).lstrip(" ")  # the first token holds the space before
        assert told == f"{answers[key]}{processor.tokenizer.eos_token}"
        text = processor.tokenizer.decode(batch["input_ids"][0])
        question = WHICH_HAS.replace("{caption}", "a grey cat") if answers[key] in "AB" else "What is the difference"
        assert question in text
        image_token = processor.tokenizer.convert_tokens_to_ids("<image>")
        assert (batch["input_ids"] == image_token).sum() > 10
        assert batch["pixel_values"].shape[0] == 1


@pytest.mark.parametrize("shown", ["two", "joined"])
def test_webdataset_reads_images_and_facts(made: MadeSamples, tmp_path: Path, shown: str) -> None:
    import webdataset

    out = exported(made, tmp_path / "out", "webdataset", shown=shown)
    urls = sorted(map(str, (out / "shards").glob("*.tar")))
    assert [Path(url).name for url in urls] == ["train-00000.tar", "validation-00000.tar"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves files to the garbage collector
        read = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
        gc.collect()
    expected = {each.key: each for each in samples(made, Choice(validation=0.3))}
    assert sorted(each["__key__"] for each in read) == sorted(expected)
    for each in read:
        sample = expected[each["__key__"]]
        assert each["json"]["answer"] == sample.answer
        assert f"/{sample.split}-" in each["__url__"]
        if shown == "two":
            assert (each["left.jpg"].size, each["right.jpg"].size) == ((64, 64), (64, 64))
        else:
            assert each["jpg"].size == (132, 64)


def llama_factory(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Its parser and converter alone: the whole package wants other versions of what we have."""
    root = f"{WHEEL}/llamafactory"
    stubs: dict[str, dict[str, Any]] = {
        "llamafactory": {"__path__": [root]},
        "llamafactory.data": {"__path__": [f"{root}/data"]},
        "llamafactory.extras": {"__path__": [f"{root}/extras"]},
        "llamafactory.extras.constants": {"DATA_CONFIG": "dataset_info.json", "RUNNING_LOG": "log"},
        "llamafactory.extras.misc": {"use_modelscope": lambda: False, "use_openmind": lambda: False},
    }
    for name, facts in stubs.items():
        module = ModuleType(name)
        vars(module).update(facts)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(WHEEL)
    return importlib.import_module("llamafactory.data.parser"), importlib.import_module("llamafactory.data.converter")


@pytest.mark.skipif(not WHEEL, reason="LLAMA_FACTORY_WHEEL names no wheel of llamafactory: its pins are not ours")
@pytest.mark.parametrize("shown", ["joined", "two"])
def test_llama_factory_converts_every_record(
    made: MadeSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    out = exported(made, tmp_path / "out", "llama-factory", shown=shown)
    parser, converter = llama_factory(monkeypatch)
    names = list(json.loads((out / "dataset_info.json").read_text()))
    assert names == ["imgdiff", "imgdiff_validation"]
    converted = []
    for described in parser.get_dataset_list(names, str(out)):
        convert = converter.get_dataset_converter(described.formatting, described, SimpleNamespace(media_dir=str(out)))
        converted += [convert(record) for record in json.loads((out / described.dataset_name).read_text("utf-8"))]
    answers = sorted(each.answer for each in samples(made, Choice()))
    assert sorted(each["_response"][0]["content"] for each in converted) == answers
    for each in converted:
        (prompt,) = each["_prompt"]
        assert prompt["role"] == "user"
        assert prompt["content"].count("<image>") == len(each["_images"]) == (1 if shown == "joined" else 2)
        assert all(Path(image).is_file() for image in each["_images"])
