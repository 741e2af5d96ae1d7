"""What each of the paper's four settings keeps of one run."""

import json
from pathlib import Path

import anyio
import pytest
from PIL import Image

from imgdiffd.choosing.ablation import TABLE_14, tally
from imgdiffd.cli.main import main
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, CLIP_TEXT_COSINE, Box, Candidate, match_key, noun_key
from imgdiffd.method.profile import load_profile
from imgdiffd.method.replay import Stored, StoredPair, StoredRegion
from imgdiffd.store.stored import StoredCaption
from tests.fakes.bench import CAPTIONS, bench
from tests.fakes.store_driver import submit

RUN = load_profile("table14")
FIRST: Box = (0, 0, 40, 40)
OVERLAPPING: Box = (0, 0, 40, 44)
THIRD: Box = (60, 60, 90, 90)


def caption(item: int, similarity: float, *regions: tuple[Box, float, float, float, float, str]) -> StoredCaption:
    """A pair and its regions: box, crops' cosine, noun's score, texts' cosine, match, text 2."""
    kind = RUN.locate.noun_kind
    boxes, described = [], []
    for box, crops, noun, texts, match, said in regions:
        scores = {CLIP_IMAGE_COSINE: crops, noun_key(kind, 1): noun, noun_key(kind, 2): noun}
        boxes.append(Candidate(1, box, scores))
        told = {CLIP_TEXT_COSINE: texts, **{match_key(kind, side): match for side in (1, 2)}}
        described.append(StoredRegion(box, told, "a cat", said, 1, "It differs.", "", ("l.png", "r.png")))
    pair = StoredPair("1.png", "2.png", 100, 100, 1, {CLIP_IMAGE_COSINE: similarity})
    stored = Stored(item, "a cat", RUN, 1, {}, pair, tuple(boxes), tuple(described))
    return StoredCaption(1, stored, None)


def test_each_setting_keeps_what_its_bounds_let_through() -> None:
    found = tally(
        [
            caption(1, 0.95, (FIRST, 0.5, 0.5, 0.5, 0.6, "a dog"), (THIRD, 0.6, 0.32, 0.5, 0.6, "A  cat")),
            caption(2, 0.95, (FIRST, 0.5, 0.5, 0.88, 0.6, "a dog"), (THIRD, 0.6, 0.5, 0.5, 0.35, "a dog")),
            caption(3, 0.87, (FIRST, 0.5, 0.5, 0.5, 0.6, "a dog")),
            caption(4, 0.5, (FIRST, 0.5, 0.5, 0.5, 0.6, "a dog")),
        ]
    )
    assert [(each.pairs, each.regions, len(each.samples)) for each in found] == [
        (2, 4, 4),
        (2, 3, 3),
        (2, 3, 1),
        (3, 4, 2),
    ]
    assert [each.kept_of(found[2]) for each in found] == [1.0, 1.0, 1.0, 1.0]
    assert [each.equal_share for each in found] == [0.25, 0.0, 0.0, 0.0]
    assert found[2].mean_match == pytest.approx(0.6)
    assert found[0].mean_match == pytest.approx((3 * 0.6 + 0.35) / 4)


def test_box_that_a_looser_bound_had_pushed_out_is_counted() -> None:
    pushed = caption(1, 0.95, (FIRST, 0.5, 0.32, 0.5, 0.6, "a dog"), (OVERLAPPING, 0.6, 0.5, 0.5, 0.6, "a dog"))
    found = tally([pushed])
    assert [each.samples for each in found] == [{(1, FIRST)}, *[{(1, OVERLAPPING)}] * 3]
    assert [each.undescribed for each in found] == [0, 0, 0, 0]


def test_regions_without_texts_are_counted_and_are_no_samples() -> None:
    one = caption(1, 0.95, (FIRST, 0.5, 0.5, 0.5, 0.6, "a dog"))
    stored = one.caption
    lacking = StoredCaption(1, Stored(1, "a cat", RUN, 1, {}, stored.pair, stored.candidates), None)
    found = tally([lacking])
    assert [(each.regions, each.undescribed, len(each.samples)) for each in found] == [(1, 1, 0)] * 4
    assert [(each.equal_share, each.mean_match, each.kept_of(each)) for each in found] == [(None, None, None)] * 4
    assert [each.setting for each in tally([])] == list(TABLE_14)


def test_ablate_prints_the_table_and_writes_four_datasets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with bench(tmp_path) as there:
            await submit(there.store, CAPTIONS[:3])  # of another profile: not meant
            await submit(there.store, CAPTIONS[:6], profile=RUN)
            await there.finish()

    anyio.run(run)
    monkeypatch.setenv("IMGDIFFD_CONFIG", "/dev/null")
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path))
    main(["ablate", "table14", "--json", "--out", str(tmp_path / "out")])
    rows = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in rows] == [1, 2, 3, 4]
    samples = {row["samples"] for row in rows}
    assert len(samples) == 1
    assert samples.pop() > 3
    for row in rows:
        made = json.loads((tmp_path / f"out/row-{row['row']}/img_diff_object_replacement.json").read_text())
        assert len(made) == row["samples"]
        with Image.open(tmp_path / f"out/row-{row['row']}" / f"{made[0]['path']}_0.jpg") as image:
            assert image.size == (100, 100)
        card = (tmp_path / f"out/row-{row['row']}/README.md").read_text()
        assert f"| pair.above | {row['is'][0]} |" in card, "the setting's own bounds, not those of the run"
        assert "captions narrowed" not in card, "that of the run tells nothing of the setting"
    main(["ablate", "table14", "--job", "1"])
    assert "paper: gain" in capsys.readouterr().out
