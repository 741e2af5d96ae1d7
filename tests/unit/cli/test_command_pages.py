"""The generated pages: they are what the program says now, man(1) reads the manual, and no command is missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from imgdiffd.cli.main import build
from imgdiffd.cli.usage import commands_below
from imgdiffd.settings import SYSTEM_FILE, Settings
from tests.reference.command_pages import FOLDER, command_page, man_page, pages, settings_page

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_pages_are_up_to_date(name: str) -> None:
    written = ROOT / FOLDER / name
    current = written.read_text("utf-8") if written.exists() else ""
    assert current == pages()[name], f"{FOLDER / name} is stale: run `make reference`"


def test_every_command_and_option_is_on_both_pages() -> None:
    markdown, roff = command_page(), man_page().replace("\\-", "-")
    for path, command in commands_below(build()):
        assert f"### imgdiffd {' '.join(path)}\n" in markdown
        assert f".SS imgdiffd {' '.join(path)} " in roff
        for param in command.params:
            assert f"`{param.opts[0]}" in markdown or param.param_type_name == "argument"
            assert f".B {param.opts[0]}" in roff or param.param_type_name == "argument"
    assert str(SYSTEM_FILE) in markdown


def test_every_setting_has_its_kind_default_and_variable() -> None:
    page = settings_page()
    for key in Settings.model_fields:
        section = page.partition(f"\n## {key}\n")[2].partition("\n## ")[0]
        assert [line.partition(":")[0] for line in section.splitlines() if line.startswith("- ")] == [
            "- Values",
            "- Default",
            "- Environment variable",
            "- A reload applies it",
        ]
    assert "- Values: whole number from 1 to 8\n- Default: `2`\n- Environment variable: `IMGDIFFD_IN_FLIGHT`" in page
    assert "- Environment variable: `IMGDIFFD_POLL_S`\n- A reload applies it: yes" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_man_reads_the_manual_without_complaint() -> None:
    groff = ["groff", "-man", "-Tutf8", "-ww", "-K", "utf8", "-P", "-c", "-P", "-bou"]
    read = subprocess.run(groff, input=man_page(), encoding="utf-8", capture_output=True, check=True)
    assert read.stderr == ""
    assert "imgdiffd models plan [OPTIONS] [BUNDLE]" in read.stdout
    assert "--cards GB..." in read.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_the_manual_is_installed_where_man_looks_for_it(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-C", str(ROOT), "install-units", f"DESTDIR={tmp_path}"], check=True)
    installed = tmp_path / "usr" / "local" / "share" / "man" / "man1" / "imgdiffd.1"
    assert installed.read_text("utf-8") == man_page()
