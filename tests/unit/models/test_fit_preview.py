"""Fitting a preview: the command prints it for a bundle's file, and the miniature bundle's is written there."""

import tomllib
from pathlib import Path

import pytest

from imgdiffd.bundles.bundle import LinearMap, load_bundle
from imgdiffd.cli.main import main
from imgdiffd.mini.fit_preview import with_preview
from imgdiffd.models import fit_preview
from tests.tiny.sdxl import IMAGE_PX

FIRST = LinearMap(factors=((0.5, 0.25, 0.0),), bias=(0.0, 0.0, 0.0))
SECOND = LinearMap(factors=((0.0, 1.0, 0.0), (1.0, 0.0, 0.0)), bias=(0.5, 0.5, 0.5))


def test_the_command_prints_a_table_that_the_bundle_takes(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(fit_preview, "CAPTIONS", ("a red ball", "a blue cube", "a green fish", "a dog"))
    profile = tmp_path / "tiny.toml"
    profile.write_text(f'extends = "mini"\n[generate]\npicture_px = {IMAGE_PX}\nsteps = 2\n', "utf-8")
    given = tiny_bundle.with_name("fitted.toml")
    given.write_text(f'profile = "{profile}"\n' + tiny_bundle.read_text("utf-8"), "utf-8")
    main(["models", "fit-preview", str(given)])
    out, err = capsys.readouterr()
    given.write_text(given.read_text("utf-8") + out, "utf-8")
    preview = load_bundle(given).painter.preview
    assert isinstance(preview, LinearMap)
    assert len(preview.factors) == 4
    assert str(given) in err
    assert "% of the colours' variance" in err


def test_a_fit_takes_the_place_of_the_one_before() -> None:
    text = '[painter]\nsource = "p"\n\n[clip]\nsource = "c" # kept\n'
    once = with_preview(text, FIRST)
    between = once.replace("[clip]", "[blip]\n\n[clip]")
    twice = with_preview(between + '\n[eraser]\nsource = "e"\n', SECOND)
    data = tomllib.loads(twice)
    assert LinearMap.model_validate(data["painter"]["preview"]) == SECOND
    assert data["clip"] == {"source": "c"}
    assert data["eraser"] == {"source": "e"}
    assert "# kept" in twice
    assert twice.count("[painter.preview]") == 1
