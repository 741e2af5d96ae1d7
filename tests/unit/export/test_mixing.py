"""Our records shuffled into an instruction set: all there, byte for byte, in an order that the seed decides."""

import json
from pathlib import Path
from typing import Any

import pytest

from imgdiffd.errors import ExportError
from imgdiffd.export import instructions
from imgdiffd.export.instructions import find_records
from imgdiffd.export.mixing import Mixed, mix


def conversation(number: int, **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": f'<image>\n“{number}” {{[,]}} \\"'}, {"from": "gpt", "value": "日本 \u2028 ä"}]
    return {"id": f"{number:012d}", "image": f"coco/{number}.jpg", "conversations": turns, **more}


def ours(count: int) -> list[dict[str, Any]]:
    return [conversation(number, id=f"imgdiff-{number:032x}", image=f"imgdiff/{number}.jpg") for number in range(count)]


def a_list(path: Path, records: list[dict[str, Any]], **how: Any) -> Path:
    path.write_text(json.dumps(records, **how), "utf-8")
    return path


def mixed(folder: Path, own: int, others: Path, repeat: int = 1, seed: int = 0) -> tuple[Mixed, bytes]:
    target = folder / "mix.json"
    done = mix(a_list(folder / "own.json", ours(own)), others, target, repeat=repeat, seed=seed)
    return done, target.read_bytes()


def test_every_record_of_both_is_there_byte_for_byte(tmp_path: Path) -> None:
    theirs = [conversation(number) for number in range(1980)]
    texts = [json.dumps(each, indent=number % 3, ensure_ascii=number % 2 == 0) for number, each in enumerate(theirs)]
    others = tmp_path / "others.json"
    others.write_text("\ufeff [ " + " ,\r\n".join(texts) + "\n]\n\n", "utf-8")
    done, data = mixed(tmp_path, 20, others, seed=1)
    assert done == Mixed(20, 1, 1980, len(data))
    assert done.records == 2000
    assert sorted(json.loads(data), key=str) == sorted([*theirs, *ours(20)], key=str)
    assert len(data) == sum(len(text.encode()) + 2 for text in [*texts, *map(json.dumps, ours(20))]) + 3
    assert all(text.encode() in data for text in texts)


def test_the_seed_decides_the_order_and_the_bytes(tmp_path: Path) -> None:
    others = a_list(tmp_path / "others.json", [conversation(number) for number in range(500)])
    first, again, other = (mixed(tmp_path, 10, others, seed=seed)[1] for seed in (1, 1, 2))
    assert first == again != other
    places = [place for place, each in enumerate(json.loads(first)) if each["id"].startswith("imgdiff-")]
    assert 100 < sum(places) / 10 < 400
    assert [each["id"] for each in json.loads(first)] != sorted(each["id"] for each in json.loads(first))


def test_another_sample_leaves_the_others_in_their_order(tmp_path: Path) -> None:
    others = a_list(tmp_path / "others.json", [conversation(number) for number in range(200)])
    fewer, more = (json.loads(mixed(tmp_path, count, others)[1]) for count in (5, 6))
    assert [each for each in more if each["id"] != f"imgdiff-{5:032x}"] == fewer


def test_repeated_records_have_ids_of_their_own(tmp_path: Path) -> None:
    others = a_list(tmp_path / "others.json", [conversation(1)])
    done, data = mixed(tmp_path, 2, others, repeat=3)
    assert (done.own, done.repeat, done.others, done.records) == (2, 3, 1, 7)
    name = f"imgdiff-{0:032x}"
    records = {each["id"]: each for each in json.loads(data)}
    assert len(records) == 7
    for called in (name, f"{name}-2", f"{name}-3"):
        assert records[called] == ours(1)[0] | {"id": called}


def test_a_mix_of_an_older_mix_is_refused(tmp_path: Path) -> None:
    others = a_list(tmp_path / "others.json", [conversation(1), *ours(1)])
    with pytest.raises(ExportError, match=r"others\.json: record 2 has the id imgdiff-0+, .*not into an older mix"):
        mixed(tmp_path, 1, others)


def test_ids_of_others_may_repeat_or_lack(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [conversation(1), conversation(1), conversation(2, id=7), conversation(3, id=[])]
    del records[1]["id"]
    assert mixed(tmp_path, 1, a_list(tmp_path / "others.json", records))[0].others == 4


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1000])
def test_records_are_found_wherever_reading_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(instructions, "_CHUNK_BYTES", chunk)
    records = [conversation(number, more={"deep": [number, -1.5e3, None]}) for number in range(3)]
    path = a_list(tmp_path / "others.json", records, ensure_ascii=False, indent=1)
    data = path.read_bytes()
    with path.open("rb") as file:
        found = [data[each.start : each.start + each.length] for each in find_records(file, path)]
    assert [json.loads(each) for each in found] == records


GOOD = json.dumps(conversation(7))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        (GOOD, "is not a JSON list, but begins with '{' .*jq --slurp"),
        ('"text"', "is not a JSON list, but begins with '\"'"),
        ("\x1f\x8b\x08", r"is compressed \(unpack it first: gunzip"),
        (f"[{GOOD}", r"record 1, .*the file ends behind it"),
        (f"[{GOOD},", r"record 2, from byte \d+: the file ends in the middle of it"),
        (f"[{GOOD},{GOOD[:-20]}", r"record 2, from byte \d+: the file ends in the middle of it"),
        (f"[{GOOD},{GOOD[:30]}", r"record 2, from byte \d+: the file ends in the middle of it"),
        (f"[{GOOD},]", "record 1, .*a comma but no record follows it"),
        (f"[{GOOD} {GOOD}]", "record 1, .*a comma or the list's end should follow it"),
        (f"[{GOOD}]{GOOD}", "something follows its end"),
        (f"[{GOOD}, {{'id': 1}}]", "record 2, .*broken JSON: Expecting property name"),
        (f"[{GOOD}, 5]", "record 2, .*it is not a record, but int"),
        ('[{"id": "x\u202e7"}]', r"record 1 \(id x\\u202e7\), from byte 1: it has no conversations"),
        ('[{"conversations": []}]', "record 1, .*it has no conversations"),
        ('[{"conversations": [{"from": "user", "value": ""}]}]', "turn 1 of 1 turn is not text from human or gpt"),
        ('[{"conversations": [{"from": "gpt", "value": ["a"]}]}]', "turn 1 of 1 turn is not text from human or gpt"),
        (f'[{{"n": {"9" * 5000}}}]', "record 1, .*broken JSON: .*4300 digits"),
        ("[" * 200_000, "record 1, .*nested too deeply"),
    ],
)
def test_what_is_no_instruction_set_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    others = tmp_path / "others.json"
    others.write_bytes(text.encode("latin-1") if text.startswith("\x1f") else text.encode())
    with pytest.raises(ExportError, match=words) as caught:
        mixed(tmp_path, 1, others)
    assert str(others) in str(caught.value)
    assert not (tmp_path / "mix.json").exists()


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    others = tmp_path / "others.json"
    others.write_bytes(b"[" + GOOD.encode() + b", " + json.dumps(conversation(2, note="-")).encode()[:-2] + b'\xff"}]')
    with pytest.raises(ExportError, match=r"record 2 \(id 000000000002\), .*it is not UTF-8"):
        mixed(tmp_path, 1, others)


def test_a_string_without_end_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "LONGEST_BYTES", 1 << 20)
    monkeypatch.setattr(instructions, "_CHUNK_BYTES", 1 << 18)
    others = tmp_path / "others.json"
    others.write_text(f'[{GOOD}, {{"id": "{"x" * (3 << 20)}')
    with pytest.raises(ExportError, match=r"record 2, .*longer than 1 MiB or broken"):
        mixed(tmp_path, 1, others)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"gone\.json: cannot be read: No such file"):
        mixed(tmp_path, 1, tmp_path / "gone.json")
    with pytest.raises(ExportError, match="is not a file"):
        mixed(tmp_path, 1, tmp_path)


def test_a_list_that_is_changed_meanwhile_gives_no_mix(tmp_path: Path) -> None:
    others = a_list(tmp_path / "others.json", [conversation(1)])

    def touch(_: float) -> None:
        others.write_text("[]")

    with pytest.raises(ExportError, match="was changed meanwhile"):
        mix(a_list(tmp_path / "own.json", ours(1)), others, tmp_path / "mix.json", progress=touch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["others.json", "own.json"]


def test_an_empty_list_of_others_takes_ours_alone(tmp_path: Path) -> None:
    done, data = mixed(tmp_path, 2, a_list(tmp_path / "others.json", []))
    assert (done.records, len(json.loads(data))) == (2, 2)
    with pytest.raises(ExportError, match="there is no sample to mix into"):
        mixed(tmp_path, 0, a_list(tmp_path / "others.json", [conversation(1)]))
