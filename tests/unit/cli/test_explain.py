"""What `imgdiffd explain` shows people: the caption first, every part of the story, nothing that a terminal obeys."""

import io
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console

from imgdiffd.cli.explain import story_parts
from imgdiffd.job import ItemState
from imgdiffd.method.profile import load_profile
from imgdiffd.pipeline import Stage
from imgdiffd.store import CandidateRow, ErasureRow, PairRow, RegionRow, RemovalStory, RewriteRow
from tests.fakes.made_samples import SAMPLE

EVIL = "a [red]cat[/] on\x1b[31m a \u202emat[/nothing]"
BOX = (1, 2, 30, 40)


def story(**changed: Any) -> dict[str, Any]:
    pair = PairRow("a dog on a mat", ("cat",), ("dog",), "12-1-1.png", "12-1-2.png", 64, 64, 1, {"clip": 0.95}, "Yes")
    boxes = [CandidateRow(1, BOX, {"clip": 0.1}, "", ""), CandidateRow(2, BOX, {}, "box_too_small", "0.001")]
    region = RegionRow(0, 0, 1, BOX, {"match": 0.4}, "a grey cat", "a brown dog", 1, "It barks.", "", "")
    return {
        "item": 12, "job": {"id": 3, "name": "c.txt"}, "profile": {"name": "default"}, "line": 5,
        "sampling": load_profile("default").sampling, "source_id": "coco-9",
        "caption": "a cat on a mat", "stage": "render", "state": "sampled", "attempt": 2, "crashes": 0, "reason": "",
        "detail": "", "rewrites": [
            asdict(RewriteRow(1, "a cat on a mat", False, 7, 7, 1, "unchanged", "")),
            asdict(RewriteRow(2, "a dog on a mat", True, 7, 7, 1, "", "")),
        ],
        "pair": asdict(pair), "candidates": [asdict(box) for box in boxes], "regions": [asdict(region)],
        "samples": [asdict(SAMPLE)], "removal": None, "pictures_gone": {"12-1-1.png": "not kept"},
        "profiles": {"0": ["default", "strict"]},
    } | changed  # fmt: skip


def shown(told: dict[str, Any], width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for part in story_parts(told):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_caption_comes_first_then_the_edited_one_and_the_verdict() -> None:
    lines = shown(story())
    assert lines[:7] == [
        "a cat on a mat",
        "→ a dog on a mat",
        "sampled in render: 1 sample",
        "caption 12, line 5 (coco-9) of job 3 c.txt, profile default",
        "rewrite: temperature 0.8, top_p 0.95, max_new_tokens 128",
        "describe: temperature 0, max_new_tokens 64",
        "contrast: temperature 0, max_new_tokens 128",
    ]


@pytest.mark.parametrize(
    "said",
    ["unchanged", "a dog on a mat …", "cat → dog", "clip 0.9500", "the judge: Yes", "boxes: 2, kept 1", "1 2 30 40",
     "box_too_small: 0.001", "a grey cat", "a brown dog", "It barks.", "match 0.4000", "a sample under strict too",
     "12-1-1.png: not kept"],
)  # fmt: skip
def test_every_part_of_the_story_is_told(said: str) -> None:
    assert said in "\n".join(shown(story()))


def test_a_failure_says_where_and_why() -> None:
    failed = story(state="failed", stage="rewrite", reason="broke_rewrite", detail="signal 9", crashes=3, samples=[])
    lines = shown(failed | {"pair": None, "rewrites": [], "candidates": [], "regions": []})
    assert lines[1:3] == ["not rewritten", "failed in rewrite: broke_rewrite: signal 9; it killed 3 workers"]


def test_a_pair_given_up_half_painted_shows_its_score() -> None:
    detail = "preview_cosine 0.6123, wanted at least 0.8"
    pair = asdict(PairRow("a dog on a mat", ("cat",), ("dog",), "", "", 64, 64, 1, {"preview_cosine": 0.6123}))
    given_up = {"state": "rejected", "stage": "generate", "reason": "preview_too_different", "detail": detail}
    nothing: dict[str, Any] = {"samples": [], "candidates": [], "regions": [], "pictures_gone": {}}
    lines = shown(story(pair=pair, **given_up, **nothing))
    assert lines[2] == f"rejected in generate: preview_too_different: {detail}"
    [row] = [line for line in lines if "given up half-painted" in line]
    assert "preview_cosine 0.6123" in row


def test_hundreds_of_boxes_fit_on_a_screen_kept_ones_first() -> None:
    boxes = [asdict(CandidateRow(1, BOX, {}, "box_too_small", "")) for _ in range(300)]
    lines = shown(story(candidates=[*boxes, asdict(CandidateRow(2, BOX, {}, "", ""))]))
    assert len(lines) < 60
    assert "boxes: 301, kept 1, 12 of them here and all with --json" in lines
    first = lines.index("boxes: 301, kept 1, 12 of them here and all with --json") + 3
    assert lines[first].split() == ["2", "1", "2", "30", "40", "kept"]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_no_text_is_obeyed_and_no_line_is_wider_than_the_terminal(width: int) -> None:
    told = story(caption=EVIL, source_id=EVIL, reason=EVIL, detail=EVIL, pictures_gone={EVIL: EVIL})
    told["job"]["name"] = told["profile"]["name"] = EVIL
    told["pair"] |= {"caption2": EVIL, "answer": EVIL, "nouns1": [EVIL], "scores": {EVIL: 1.0}}
    for part in (*told["rewrites"], *told["candidates"], *told["regions"]):
        part |= {key: EVIL for key in ("answer", "text1", "text2", "difference", "reason", "detail") if key in part}
    lines = shown(told, width)
    assert all(line.isprintable() and len(line) <= width for line in lines)
    assert "\\x1b" in "".join(lines)


def test_object_removal_is_told_last() -> None:
    from tests.unit.method.test_removal import erasure

    erased = ErasureRow(erasure(), "a red ball", {"original": 0.9}, "left", "A", "w.png", "o.png", "still_there", "0.4")
    found = (CandidateRow(1, BOX, {}, "", ""),)
    removal = RemovalStory(90, Stage.INSPECT, ItemState.REJECTED, 1, 0, "no_object", "", 0.0, 0.0, found, (erased,))
    lines = shown(story(removal=asdict(removal)))
    at = lines.index("object removal: rejected in inspect: no_object")
    told = "\n".join(lines[at:])
    assert all(part in told for part in ("a red ball", "original 0.9000", "still_there: 0.4", "objects erased"))
