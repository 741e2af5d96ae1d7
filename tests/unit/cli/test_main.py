"""The command line: what it says when something is wrong, and with which status."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imgdiffd.api.client import Client
from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.cli.main import build, main
from imgdiffd.cli.parameters import CONFIG
from imgdiffd.cli.usage import commands_below
from imgdiffd.mini.evaluate import demo_captions
from imgdiffd.mini.world import parse_caption

ROOT = Path(__file__).parents[3]


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
        (("profile", "nope"), 78, "default, paper, scripts, data-juicer, table14, mini"),
        (("status",), 1, "imgdiffd serve"),
        (("submit", "/nowhere.json"), 1, "/nowhere.json: no such file"),
        (("demo", "--captions", "/nowhere.json"), 1, "/nowhere.json: no such file"),
        (("export", "/tmp/never"), 1, "no such database"),
        (("submit", "a.txt", "--priority", "1000"), 2, "--priority: 1000 is out of range; give one from -100 to 100"),
        (("submit", "a.txt", "--field", ""), 2, "--field: it is empty; leave the option out"),
        (("submit", "a.txt", "--name", ""), 2, "--name: it is empty"),
        (("submit", "a.txt", "--profile", " "), 2, "--profile: it is empty"),
        (("retry", "--all", "--reason", ""), 2, "--reason: it is empty"),
        (("export", "out", "--profile", ""), 2, "--profile: it is empty"),
        (("delete", "1"), 1, "state.db: no such database"),
        (("prune", "--older-than", "30d"), 1, "state.db: no such database"),
        (("status", "0"), 2, "give one from 1"),
        (("status", "one"), 2, "JOB: 'one' is not a whole number"),
        (("submit", "a.txt", "--priority", "high"), 2, "--priority: 'high' is not a whole number; give one such as 7"),
        (("simulate", "--placement", "odd"), 2, "--placement: 'odd' is not one of 'equal', 'mixed'"),
        (
            ("simulate", "--slow-card", "half"),
            2,
            "--slow-card: 'half' is not a number; give a share of the others' speed",
        ),
        (
            ("simulate", "--slow-card", "2"),
            2,
            "--slow-card: 2 is out of range; give a share of the others' speed above 0",
        ),
        (
            ("simulate", "--failure-rate", "-0.1"),
            2,
            "--failure-rate: -0.1 is out of range; give a share of the batches",
        ),
        (("simulate", "--failure-rate", "nan"), 2, "--failure-rate: 'nan' is not a number"),
        (("simulate", "--out", "/dev/null/out"), 78, "/dev/null/out: the charts cannot be written there"),
        (("status", "1_0"), 2, "JOB: '1_0' is not a whole number"),
        (("status", "٣"), 2, "JOB: '٣' is not a whole number"),
        (("cancel", " 1"), 2, "JOB: ' 1' is not a whole number"),
        (("models", "plan", "--cards", "8_0"), 2, "--cards: '8_0' is not a number"),
        (("submit",), 2, "FILE is missing (see `imgdiffd submit --help`)"),
        (("status", "--config"), 2, "--config requires an argument"),
        (("status", "--config", ""), 2, "the name of a file is needed, not of a folder or nothing"),
        (("status", "--json=yes"), 2, "--json does not take a value"),
        (("explain", "1", "2"), 2, "extra argument(s) (2)"),
        (("retry",), 2, "either numbers of jobs or --all"),
        (("retry", "1", "--failed"), 2, "either numbers of jobs or --all"),
        (("demo", "--foldr", "x"), 2, "there is no option '--foldr'; did you mean '--folder'?"),
        (("--json", "status"), 2, "there is no option '--json' (see `imgdiffd --help`)"),
        (("statsu",), 2, "there is no command 'statsu'; did you mean 'status'? (see `imgdiffd --help`)"),
        (("fly",), 2, "there is no command 'fly' (see `imgdiffd --help`)"),
        (("mini", "evaluat"), 2, "there is no command 'mini evaluat'; did you mean 'mini evaluate'?"),
        (("models", "plann"), 2, "there is no command 'models plann'; did you mean 'models plan'?"),
        (("models", "papr"), 78, "use one of mini, paper, small, compact"),
        (("models", "plan", "small", "--cards", "24"), 78, "To use: cuda:0 21.5 GB"),
        (
            ("models", "plan", "--cards", "small"),
            2,
            "--cards: 'small' is not a number; give a card's size in GB, such as 80",
        ),
    ],
)
def test_an_error_is_one_line_with_its_cause_and_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, words: str
) -> None:
    assert _run(*arguments) == status
    message = capsys.readouterr().err.strip()
    assert words in message
    assert len(message.splitlines()) == 1
    assert message.startswith("imgdiffd: ")
    if status == 2:
        assert re.search(r" \(see `imgdiffd( \w+)* --help`\)$", message)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ("models /nowhere/own.toml", "/nowhere/own.toml"),
        ("models ./nowhere", "nowhere"),
        ("profile /nowhere/own.toml", "/nowhere/own.toml"),
        ("profile {0}/latin.toml", "latin.toml"),
        ("models {0}/latin.toml", "latin.toml"),
        ("models {0}/odd.toml", "odd.toml"),
        ("simulate --costs /nowhere.json", "/nowhere.json"),
    ],
)
def test_an_error_names_a_path_once_and_no_errno(
    arguments: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"\n')
    (tmp_path / "odd.toml").write_text("painter = 3\n")
    assert _run(*arguments.format(tmp_path).split()) == 78
    message = capsys.readouterr().err
    assert message.count(path) == 1
    assert "Errno" not in message
    assert "codec" not in message


def test_a_wrong_setting_ends_serve_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "imgdiffd.toml"
    settings.write_text('state_folder = "state"\ndevises = ["cpu"]\n')
    assert _run("--config", str(settings), "serve") == 78
    assert "line 2: devises" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_plan_for_other_cards_needs_neither_cards_nor_models(capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.parametrize("words", ["settings", "--help", "--version", "models mini"])
def test_output_that_nobody_reads_ends_quietly(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    piped = subprocess.run(
        [sys.executable, "-P", "-m", "imgdiffd", *words.split()],
        env=os.environ | {"PYTHONUNBUFFERED": ""},  # buffered, as it is for most people
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (piped.returncode, piped.stderr) == (141, "")


@pytest.mark.parametrize("words", ["", "list", "mini", "list mini", "../mini", "--config {} mini", "mini --config {}"])
def test_the_word_list_may_be_left_out_after_models(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(load_bundle("mini").path.parent, tmp_path / "mini")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    main(["models", *words.format("/dev/null").split()])
    assert "captioner" in capsys.readouterr().out


@pytest.mark.parametrize(
    "order", ["--config {} settings", "settings --config {}", "--config /gone settings --config {}"]
)
def test_settings_file_is_named_before_or_after_the_command(
    order: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.toml"
    file.write_text("poll_s = 7.5\n")
    main(order.format(file).split())
    printed = capsys.readouterr().out
    assert printed.startswith(f"# read from {file}\n")
    assert "poll_s = 7.5\n" in printed


def test_every_command_takes_the_settings_file_once() -> None:
    for path, command in commands_below(build()):
        assert [param.name for param in command.params].count(CONFIG) == 1, path


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
    assert '\nname = "paper"\n' in capsys.readouterr().out
    main(("profile", "paper", "--json"))
    assert json.loads(capsys.readouterr().out)["name"] == "paper"


def test_every_command_that_a_page_types_exists() -> None:
    commands = {path[0] for path, _ in commands_below(build())}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    typed = "\n".join(
        block for page in pages for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    )
    found = set(re.findall(r"^imgdiffd ([a-z]+)\b", typed, re.MULTILINE))
    assert len(found) > 3
    assert found <= commands


@pytest.mark.parametrize(("words", "heading"), [("", "Daemon:"), ("mini", "Commands:")])
def test_a_group_without_a_command_shows_its_help_as_an_error(
    words: str, heading: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(*words.split()) == 2
    printed = capsys.readouterr()
    assert heading in printed.err
    assert printed.out == ""


def test_every_help_fits_80_columns_and_leaves_nothing_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # as in a pipe
    for path, command in [((), build()), *commands_below(build())]:
        for option in ("-h", "--help"):
            main([*path, option])
            shown = capsys.readouterr().out
            assert max(map(len, shown.splitlines())) <= 80, path
            assert "..." not in re.sub(r"[]A-Z]\.\.\.", "", shown), path  # but for `FILE...`
            assert all(param.opts[0] in shown for param in command.params if param.param_type_name == "option")


def test_help_and_version_load_neither_torch_nor_the_settings() -> None:
    code = (
        "import sys; from imgdiffd.cli.main import main; main([sys.argv[1]]);"
        "print(sorted({'torch', 'transformers', 'pydantic', 'rich', 'httpx'} & set(sys.modules)))"
    )
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-P", "-c", code, option], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


def test_the_demo_has_48_captions_that_its_models_know() -> None:
    captions = demo_captions()
    assert len(set(captions)) == len(captions) >= 48
    assert all(parse_caption(caption) for caption in captions)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("settings >&-", 0, ""),
        ("settings <&- >&- 2>&-", 0, ""),
        ("nonsense >&-", 2, "there is no command 'nonsense'"),
        ("--help >/dev/full", 1, "imgdiffd: No space left on device\n"),
        ("explain 9223372036854775808", 2, "give one from 1 to 9223372036854775807"),
    ],
)
def test_odd_output_and_arguments_end_in_one_line(tmp_path: Path, command: str, status: int, said: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", f"{sys.executable} -P -m imgdiffd {command}"],
        env={**os.environ, "IMGDIFFD_CONFIG": "/dev/null", "IMGDIFFD_STATE_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == status
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_argument_that_is_not_utf8_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def retry(_client: Client, _job: int | None, reason: str | None) -> int:
        return len(str(reason).encode())  # as it goes over the socket

    monkeypatch.setattr(Client, "retry", retry)
    with pytest.raises(SystemExit) as ended:
        main(("retry", "--failed", "--reason", "\udcff"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "imgdiffd: '\\udcff' is not UTF-8; give a name or a text that is\n"


def test_check_answers_programs_even_where_the_settings_are_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.toml").write_text("devises = 3\n")
    assert _run("check", "--json", "--config", str(tmp_path / "own.toml")) == 78
    told = json.loads(capsys.readouterr().out)
    assert (told["ready"], told["checks"][0]["check"], told["checks"][0]["state"]) == (False, "settings", "refused")
    assert "line 1: devises: no such setting" in told["checks"][0]["text"]
