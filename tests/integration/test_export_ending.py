"""What every export ends with, as a user types it: a mix, a check, sums, a card and Croissant, and who reads them."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from huggingface_hub import DatasetCard
from PIL import Image
from pyarrow import parquet

from imgdiffd import durable
from imgdiffd.cli.main import main
from imgdiffd.export.dataset import export_dataset
from imgdiffd.export.formats.table import FORMATS
from imgdiffd.pipeline import Stage
from imgdiffd.store import Reader, Store
from tests.fakes.store_driver import advance_to, finish, ready, record, submit

ALL_SAMPLES = 30  # two regions of 7 captions, and two objects of 8


async def _fill(database: Path) -> None:
    async with Store.open(database, removal=True) as store:
        await submit(store, 8)
        first, *others = await advance_to(store, Stage.DESCRIBE)
        await record(store, [first], passes=False)
        await record(store, others)
        await finish(store)
        while tasks := await ready(store):
            await record(store, [task for task in tasks if task.stage is tasks[0].stage])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the samples of both products of 7 captions, and a caption whose regions were rejected."""
    folder = tmp_path_factory.mktemp("state")
    anyio.run(_fill, folder / "state.db")
    images = folder / "pictures"
    images.mkdir()
    with Reader.open(folder / "state.db") as reader:
        names = {name for row in reader.samples() for name in (row.left_image, row.right_image, row.image1, row.image2)}
        for made in (row.sample for row in reader.removal_samples()):
            names |= {made.original, made.erased, made.erasure.source}
    for name in names:
        Image.effect_noise((100, 100), 50).convert("RGB").save(images / name)
    return folder


class Typing:
    """A user who exports from `state`."""

    def __init__(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state = state
        self._capsys = capsys

    def export(self, *words: str | Path) -> tuple[int, str, str]:
        """Exit status and both outputs."""
        status = 0
        try:
            main(["export", *map(str, words)])
        except SystemExit as end:
            status = int(end.code or 0)
        said = self._capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture
def typing(state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typing:
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(state))
    return Typing(state, capsys)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def others(path: Path, count: int) -> Path:
    turns = [{"from": "human", "value": "<image>\nWhat is this? “ä”"}, {"from": "gpt", "value": "A cat."}]
    records = [
        {"id": f"{number:012d}", "image": f"coco/{number}.jpg", "conversations": turns} for number in range(count)
    ]
    path.write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    return path


@pytest.fixture
def croissant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, list[dict[str, Any]]]]:
    """All records of a described folder, by record set."""
    import mlcroissant
    from mlcroissant._src.operation_graph.operations import extract

    monkeypatch.setattr(extract, "EXTRACT_PATH", type(extract.EXTRACT_PATH)(tmp_path / "extracted"))

    def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
        described = mlcroissant.Dataset(str(folder / "croissant.json"))
        assert not described.metadata.ctx.issues.errors
        return {each.id: list(described.records(each.id)) for each in described.metadata.record_sets}

    return read


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("layout", FORMATS)
def test_every_format_ends_with_sums_card_and_croissant(
    tmp_path: Path, typing: Typing, croissant: Callable[[Path], dict[str, list[dict[str, Any]]]], layout: str
) -> None:
    out = tmp_path / "out"
    status, said, error = typing.export(out, "--format", layout)
    assert (status, error) == (0, "")
    assert "images opened" in said
    assert ("no answer holds </s>" in said) == FORMATS[layout].trains
    summed = {line.split("  ", 1)[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    assert summed == set(contents(out)) - {".imgdiffd-export", "SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    card = DatasetCard.load(out / "README.md")
    assert f"`imgdiffd export --format {layout}`" in card.text or layout == "release"
    configs = vars(card.data).get("configs", [])
    found = {path for config in configs for each in config["data_files"] for path in out.glob(each["path"])}
    assert found == set(out.glob("data/*.parquet"))
    sets = croissant(out)
    assert sum(len(found) for name, found in sets.items() if not name.endswith("-images")) == (
        0 if layout == "coco" else ALL_SAMPLES
    )
    images = [found for name, found in sets.items() if name.endswith("-images")]
    assert bool(images) == FORMATS[layout].files
    assert all(each[key].size[0] > 0 for found in images for each in found for key in each if key.endswith("/image"))


def test_a_mix_holds_all_of_both_and_is_the_same_for_a_seed(tmp_path: Path, typing: Typing) -> None:
    theirs = others(tmp_path / "llava_v1_5.json", 2000)
    first, again, mgm = (tmp_path / name for name in ("first", "again", "mgm"))
    for out, layout in ((first, "llava"), (again, "llava"), (mgm, "mgm")):
        status, said, error = typing.export(out, "--format", layout, "--with", theirs, "--repeat", "2", "--seed", "7")
        assert (status, error) == (0, "")
        assert "2 times and 2,000 records of llava_v1_5.json" in said
        assert "A/B" in said
    assert contents(first) == contents(again)
    own = json.loads((first / "llava.json").read_bytes())
    mixed = json.loads((first / "mix.json").read_bytes())
    assert f"mixed: {len(own)} samples for training" in said
    assert len(mixed) == 2000 + 2 * len(own) == len({each["id"] for each in mixed})
    assert all((first / each["image"]).is_file() for each in mixed if each["image"].startswith("imgdiff/"))
    assert "mix.json" in (first / "SHA256SUMS").read_text()
    assert "2 times among 2,000 records" in (first / "README.md").read_text()
    assert typing.export(first, "--format", "llava")[0] == 0
    assert "mix.json" not in contents(first), "nothing of an older export is left"


def test_programs_are_told_what_was_written_as_json(tmp_path: Path, typing: Typing) -> None:
    theirs = others(tmp_path / "theirs.json", 5)
    status, said, _ = typing.export(tmp_path / "out", "--format", "llava", "--with", theirs, "--json")
    found = json.loads(said)
    own = len(json.loads((tmp_path / "out/llava.json").read_bytes()))
    assert (status, found["checked"]["records"] > own) == (0, True)
    assert found["mixed"] == {"own": own, "repeat": 1, "others": 5, "records": own + 5}
    told = sum(found["originals"].values()) + sum(found["answers"].values())
    assert told == sum(found["samples"].values()) >= own
    assert "--json" not in (tmp_path / "out/README.md").read_text(), "the same dataset, whatever is printed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "internvl", "--with", "x.json"], "internvl is not mixed with --with (put our entry of meta.json"),
        (["--format", "trl", "--with", "x.json"], "datasets.concatenate_datasets"),
        (["--with", "x.json"], "release is not mixed with --with (choose --format llava or mgm)"),
        (["--format", "llava", "--repeat", "2"], "--repeat is about a mix (name the instruction set: --with MIX.json)"),
        (["--format", "llava", "--with", "x.json"], "x.json: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_mixed_is_refused_with_a_way_on(
    tmp_path: Path, typing: Typing, words: list[str], said: str
) -> None:
    status, printed, error = typing.export(tmp_path / "out", *words)
    assert (status, printed) == (1, "")
    assert said in error
    assert not (tmp_path / "out").exists()


def test_a_truncated_instruction_set_leaves_no_mix(tmp_path: Path, typing: Typing) -> None:
    theirs = others(tmp_path / "theirs.json", 30)
    theirs.write_bytes(theirs.read_bytes()[:-100])
    status, _, error = typing.export(tmp_path / "out", "--format", "llava", "--with", theirs)
    assert status == 1
    assert "theirs.json: record 30, from byte" in error
    assert "mix.json" not in contents(tmp_path / "out")


def test_an_image_that_was_damaged_meanwhile_fails_the_check(
    tmp_path: Path, typing: Typing, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert typing.export(out, "--format", "llava")[0] == 0
    image = next((out / "imgdiff").iterdir())
    changed = image.stat().st_mtime_ns
    image.write_bytes(image.read_bytes()[:-300])
    os.utime(image, ns=(changed, changed))  # as a disk damages a file
    status, said, error = typing.export(out, "--format", "llava")
    assert (status, said) == (1, "")
    assert f"1 problem in what was written: imgdiff/{image.name}: cannot be opened" in error
    assert "SHA256SUMS" not in contents(out)


def test_more_kinds_are_exported_where_their_images_are(
    tmp_path: Path, typing: Typing, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["--format", "llava", "--validation", "0", "--kind", "addition", "--kind", "hard_negative"]
    status, said, error = typing.export(tmp_path / "kept", *kinds)
    assert (status, error) == (0, "")
    answers = [
        each["conversations"][1]["value"] for each in json.loads((tmp_path / "kept" / "llava.json").read_bytes())
    ]
    assert len(answers) == 16 + 2
    assert set(answers[:16]) <= {"A", "B"}
    assert all(answer.startswith("The left image shows: ") for answer in answers[16:])
    assert "wrong on purpose" in (tmp_path / "kept" / "README.md").read_text()
    assert typing.export(tmp_path / "table", "--format", "parquet", "--kind", "hard_negative")[0] == 0
    rows = [row for path in (tmp_path / "table" / "data").iterdir() for row in parquet.read_table(path).to_pylist()]
    assert {row["reason"] for row in rows} == {"descriptions_too_similar"}
    pictures = tmp_path / "state" / "pictures"
    shutil.copytree(typing.state, tmp_path / "state")
    with Reader.open(typing.state / "state.db") as reader:
        (pictures / next(iter(reader.rejected_regions())).sample.image1).unlink()
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path / "state"))
    status, said, error = typing.export(tmp_path / "gone", *kinds)
    assert (status, error) == (0, "")
    assert 'left out 2 samples whose images were not kept (keep_pictures = "all" keeps them)' in said
    listed = json.loads((tmp_path / "kept" / "llava.json").read_bytes())
    assert [each.get("reason") for each in listed] == [None] * 16 + ["descriptions_too_similar"] * 2


@pytest.mark.parametrize("at", range(5))
def test_killed_while_it_ends_an_export_goes_on(
    tmp_path: Path, typing: Typing, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    words = ("--format", "llava", "--with", others(tmp_path / "theirs.json", 20))
    out, steps = tmp_path / "out", iter(range(100))
    assert typing.export(out, "--format", "llava", "--limit", "1")[0] == 0
    write = durable.write

    def dying(files: Mapping[Path, durable.Content]) -> None:
        if {path.name for path in files} & {"mix.json", "README.md", "SHA256SUMS", "llava.json"} and next(steps) == at:
            raise KeyboardInterrupt
        write(files)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write", dying)
        status, _, _ = typing.export(out, *words)
    assert (status != 0) == (at < 4), "the points of death cover the whole end"
    assert ("SHA256SUMS" in contents(out)) == (at == 4), "the sums are the last word"
    assert typing.export(out, *words)[0] == 0
    assert typing.export(tmp_path / "new", *words)[0] == 0
    assert contents(out) == contents(tmp_path / "new")


def test_a_users_own_card_is_not_replaced(tmp_path: Path, typing: Typing) -> None:
    out = tmp_path / "out"
    with Reader.open(typing.state / "state.db") as reader:
        export_dataset(reader, typing.state / "pictures", out, layout="llava")  # as older versions did
    (out / "README.md").write_text("mine")
    status, _, error = typing.export(out, "--format", "llava")
    assert status == 1
    assert "holds README.md, which no export wrote" in error
    assert (out / "README.md").read_text() == "mine"
