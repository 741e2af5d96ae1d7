"""The command line: what it says when something is wrong, and with which status."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.cli.main import main
from imgdiffd.cli.models import spelled_out
from imgdiffd.mini.evaluate import demo_captions
from imgdiffd.mini.world import parse_caption


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGDIFFD_CONFIG", "/dev/null")
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path / "state"))


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--config", "/nowhere.toml", "check"), 78, "/nowhere.toml"),
        (("profile", "nope"), 78, "default, paper, scripts, data-juicer, mini"),
        (("status",), 1, "imgdiffd serve"),
        (("submit", "/nowhere.json"), 1, "/nowhere.json: no such file"),
        (("demo", "--captions", "/nowhere.json"), 1, "/nowhere.json: no such file"),
        (("export", "/tmp/never"), 1, "no such database"),
        (("status", "0"), 2, "must be 1 or more"),
        (("fly",), 2, "invalid choice"),
        (("models", "plan", "small", "--cards", "24"), 78, "To use: cuda:0 21.5 GB"),
        (("models", "plan", "--cards", "small"), 2, "'small' is no card's size in GB"),
    ],
)
def test_an_error_is_one_line_that_names_the_object_and_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, words: str
) -> None:
    assert _run(*arguments) == status
    message = capsys.readouterr().err.strip()
    assert words in message
    if status != 2:  # argparse prints the usage first
        assert len(message.splitlines()) == 1
        assert message.startswith("imgdiffd: ")


def test_a_wrong_setting_ends_serve_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "imgdiffd.toml"
    settings.write_text('state_folder = "state"\ndevises = ["cpu"]\n')
    assert _run("--config", str(settings), "serve") == 78
    assert "line 2: devises" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_plan_for_imagined_cards_needs_neither_cards_nor_models(capsys: pytest.CaptureFixture[str]) -> None:
    main(("models", "plan", "paper", "--cards", "80", "80", "80", "80"))
    table = capsys.readouterr().out
    assert len(re.findall(r"^ +cuda:\d", table, re.MULTILINE)) == 4
    assert table.count("painter") == 4
    assert table.count("rewriter") == 1


def test_the_listing_says_whether_a_bundle_fits_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGDIFFD_DEVICES", "cpu")
    main(("models", "mini"))
    assert "It fits this machine" in capsys.readouterr().out
    monkeypatch.setenv("IMGDIFFD_DEVICES", "auto")
    main(("models", "mini"))
    assert "Whether it fits this machine is not known" in capsys.readouterr().out


def test_output_that_nobody_reads_on_is_no_error() -> None:
    piped = subprocess.run(
        f"{sys.executable} -P -m imgdiffd settings | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert piped.stderr == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("models", "models list"),
        ("models paper", "models list paper"),
        ("models ./pull", "models list ./pull"),
        ("models pull", "models pull"),
        ("models pull ./pull", "models pull ./pull"),
        ("models --help", "models --help"),
        ("--config own.toml models", "--config own.toml models list"),
        ("--con models models", "--con models models list"),
        ("--config=own.toml models paper", "--config=own.toml models list paper"),
        ("submit models", "submit models"),
        ("--version", "--version"),
        ("", ""),
    ],
)
def test_the_first_word_after_models_decides_and_list_may_be_left_out(typed: str, meant: str) -> None:
    assert spelled_out(typed.split()) == meant.split()


def test_a_bundle_called_like_a_word_is_given_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(load_bundle("mini").path.parent, tmp_path / "pull")
    for command in ("models ./pull", "models pull ./pull"):
        main(command.split())
    assert capsys.readouterr().out.endswith("is whole on this machine\n")


def test_settings_and_profiles_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(("settings",))
    assert "IMGDIFFD_DEVICES" in capsys.readouterr().out
    main(("profile", "paper"))
    assert '"name": "paper"' in capsys.readouterr().out


def test_the_demo_has_at_least_48_captions_and_its_models_know_them_all() -> None:
    captions = demo_captions()
    assert len(set(captions)) == len(captions) >= 48
    assert all(parse_caption(caption) for caption in captions)
