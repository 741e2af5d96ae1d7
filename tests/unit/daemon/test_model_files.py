"""Files of models that change under a running daemon."""

import shutil
from pathlib import Path

import anyio
import pytest

from imgdiffd.bundles.bundle import MINI, load_bundle
from imgdiffd.daemon.model_files import ModelFiles


@pytest.mark.parametrize("change", ["overwritten", "replaced", "removed"])
def test_a_model_that_changes_is_named_until_it_is_back(tmp_path: Path, change: str) -> None:
    folder = shutil.copytree(load_bundle(MINI).path.parent, tmp_path / "own")
    files = ModelFiles(load_bundle(str(folder)))
    anyio.run(files.check)
    assert files.problem == ""
    weights = next(folder.rglob("*.safetensors"))
    kept = weights.rename(tmp_path / "kept")
    match change:
        case "overwritten":
            shutil.copy2(kept, weights)
            with weights.open("r+b") as file:
                file.write(b"x")
        case "replaced":
            shutil.copyfile(kept, weights)
    anyio.run(files.check)
    assert "changed since the daemon started" in files.problem
    weights.unlink(missing_ok=True)
    kept.rename(weights)
    shutil.copyfile(weights, weights.with_name("of_another_bundle.safetensors"))
    anyio.run(files.check)
    assert files.problem == ""
