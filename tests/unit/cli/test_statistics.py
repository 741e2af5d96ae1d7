"""`imgdiffd statistics`: text, JSON and a page of a dataset's folder, and one line where that cannot be."""

import json
from pathlib import Path

import pytest

from imgdiffd.cli.main import main
from imgdiffd.export import release

RECORDS = [
    {"captions1": f"a red {one}", "captions2": f"a red {other}", "path": f"object_replacement/{number}_0"}
    for number, (one, other) in enumerate([("cat", "dog"), ("moon", "bus")] * 20)
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / release.JSON_NAME).write_text(json.dumps(RECORDS))
    return folder


def test_folder_is_told_as_text_json_and_page(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["statistics", str(dataset), "--rarefy", "10", "--html", str(dataset / "page.html")])
    told = capsys.readouterr().out
    assert "pairs left → right" in told
    assert "Colour words never change: both captions of 40 samples" in told
    assert "Which object was replaced is not in this dataset" in told
    assert "60 of 80 = 75.00 %" in told
    assert "cat → dog" in (dataset / "page.html").read_text()
    main(["statistics", str(dataset), "--images", "0", "--json"])
    (kind,) = json.loads(capsys.readouterr().out)["kinds"]
    assert kind["diversity"]["categories"] == {"count": 4, "rarefied": None}
    assert kind["images"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("out", "--job", "1"), "out: a dataset does not say its jobs and profiles"),
        (("out", "--html", "nowhere/page.html"), "nowhere/page.html: cannot be written: No such file or directory"),
        ((".",), "there is no dataset in the published format"),
        (("missing.db",), "missing.db: no such database"),
        (("out", "--images", "-1"), "-1 is too small"),
    ],
)
def test_what_cannot_be_told_is_said(
    words: tuple[str, ...], said: str, dataset: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(dataset.parent)
    with pytest.raises(SystemExit):
        main(["statistics", *words])
    assert said in capsys.readouterr().err
