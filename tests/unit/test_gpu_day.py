"""The script for a day on a borrowed GPU parses, everything that it names exists, and its stand-ins do their part."""

import ast
import importlib.util
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.gpu import conftest, cv2_stand_in, packages

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "gpu" / "day.sh"
TEXT = SCRIPT.read_text("utf-8")

whole_precision = conftest.whole_precision  # a fixture that every test of a GPU has, and those here too


def words(name: str) -> list[str]:
    """The words of the script's variable `name`."""
    found = re.search(rf"^{name}='([^']*)'", TEXT, re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_the_script_parses_and_can_be_run() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    assert SCRIPT.stat().st_mode & 0o111


def test_every_module_and_file_that_it_names_exists() -> None:
    modules = re.findall(r"-m ((?:tests|imgdiffd)[\w.]*)", TEXT)
    files = re.findall(r"\b(?:tests|imgdiffd)/[\w/]+\.\w+", TEXT)
    assert len(set(modules)) == 3
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert importlib.util.find_spec("tests.gpu.probe") is not None


def test_a_bare_checkout_needs_no_installed_metadata(tmp_path: Path) -> None:
    (tmp_path / "imgdiffd").symlink_to(ROOT / "imgdiffd")
    program = "import imgdiffd; print(imgdiffd.__version__)"
    found = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout.strip()) == (0, version("imgdiffd")), found.stderr


def test_it_names_every_part_of_the_benchmark() -> None:
    text = (SCRIPT.parent / "part.py").read_text("utf-8")  # to import it takes torch and diffusers
    parts = ast.literal_eval(re.findall(r"^PARTS = (.*)$", text, re.MULTILINE)[0])
    assert re.findall(r'^        case "(\w+)":', text, re.MULTILINE) == list(parts)
    assert f"one part alone: {', '.join(parts)}\n" in TEXT


def test_gpu_tests_compare_convolutions_of_whole_precision() -> None:
    assert not torch.backends.cudnn.allow_tf32


def test_what_it_brings_along_is_locked() -> None:
    brought = packages.locked(words("BROUGHT"))
    assert [each.partition("==")[0] for each in brought] == words("BROUGHT")


def test_what_is_missing_or_too_old_is_named() -> None:
    assert packages.problems(["torch>=2.0", "numpy"]) == []
    found = packages.problems(["torch>=999.1", "no-such-package", "numpy"])
    assert found[0].endswith("wanted 999.1 or newer")
    assert found[1:] == ["no-such-package is missing"]


def test_only_missing_packages_are_installed(tmp_path: Path) -> None:
    for name in ("numpy-9.9.9-py3-none-any.whl", "no_such_package-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    assert packages.missing(str(tmp_path)) == [str(tmp_path / "no_such_package-1.0-py3-none-any.whl")]


def test_opencv_stand_in_takes_images_of_the_right_size_only() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert cv2_stand_in.resize(image, (4, 4)) is image
    assert cv2_stand_in.copyMakeBorder(image, 0, 0, 0, 0, cv2_stand_in.BORDER_CONSTANT) is image
    assert cv2_stand_in.resize(image, (8, 2)).shape == (2, 8, 3)
    assert cv2_stand_in.copyMakeBorder(image, 1, 0, 2, 0, 0, (7, 7, 7))[0].tolist() == [[7] * 3] * 6
    with pytest.raises(NotImplementedError, match=r"cv2\.imread"):
        cv2_stand_in.imread("a.png")
