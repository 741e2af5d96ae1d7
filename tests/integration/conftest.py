"""What integration tests share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def base(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle with a folder for each role; other models may join them there."""
    return shutil.copytree(tiny_bundle.parent, tmp_path_factory.mktemp("base"), dirs_exist_ok=True)
