"""`imgdiffd rewrite`: captions in any format become pairs, counted and with examples."""

import gzip
import json
from pathlib import Path

import pytest

from imgdiffd.cli.main import main

CAPTIONS = ("A black dog on a red sofa.", "Two men beside a bus", "The sky at night")


def written(folder: Path, name: str = "captions.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(CAPTIONS), "utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    main(["rewrite", *map(str, words), "--bundle", "lexicon"])
    return capsys.readouterr().out


def test_pairs_are_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, written(tmp_path), "--out", tmp_path / "pairs.jsonl")
    assert "3 captions, an object replaced in 2 (66.7 %): 2 pairs in" in told
    assert "answers refused: unchanged 1" in told
    assert "living_thing" in told
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [(pair["line"], pair["caption1"]) for pair in pairs] == [(1, CAPTIONS[0]), (2, CAPTIONS[1])]
    assert all(pair["nouns1"] != pair["nouns2"] and pair["caption2"] in told for pair in pairs)


def test_rounds_give_other_pairs_of_the_same_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = json.loads(run(capsys, written(tmp_path), "--rounds", 5, "--json"))
    assert (counts["captions"], counts["replaced"], counts["rounds"]) == (3, 2, 5)
    assert 5 < counts["pairs"] <= 10
    assert counts["refused"] == {"unchanged": 5}
    assert sum(counts["categories"].values()) == counts["pairs"]
    assert set(counts["categories"]) <= {"living_thing", "furniture", "vehicle"}


def test_every_format_of_the_inbox_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = {"annotations": [{"id": 7, "image_id": 1, "caption": caption} for caption in CAPTIONS]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(b'{"title": "a cat on a bed"}\n{"title": 7}\n'))
    assert json.loads(run(capsys, tmp_path / "coco.json", "--json"))["replaced"] == 2
    counts = json.loads(run(capsys, tmp_path / "lines.jsonl.gz", "--field", "title", "--json"))
    assert (counts["captions"], counts["unreadable"], counts["replaced"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.txt",), "nowhere.txt: cannot be read: No such file or directory"),
        (("empty.txt",), "empty.txt: the file is empty"),
        (("captions.txt", "--profile", "nope"), "profile nope: unknown"),
        (("captions.txt", "--out", "nowhere/pairs.jsonl"), "nowhere/pairs.jsonl: cannot be written"),
        (("captions.txt", "--rounds", "0"), "0 is too small"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(SystemExit):
        main(["rewrite", *words, "--bundle", "lexicon"])
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.txt", "empty.txt"]


def test_a_bundles_own_model_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "toys.txt").write_text(
        "a white tree and a yellow cube in the sea\na yellow star and a blue cone at night\n"
    )
    main(["rewrite", str(tmp_path / "toys.txt"), "--bundle", "mini", "--rounds", "2", "--json"])
    counts = json.loads(capsys.readouterr().out)
    assert counts["captions"] == 2
    assert counts["replaced"] == 2
    assert all(pair["nouns2"] for pair in counts["examples"])
