"""What a shell is offered when somebody presses Tab, by the protocol of bash, zsh and fish."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgdiffd.cli.main import COMPLETION, main


def offered(typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv(COMPLETION, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("imgdiffd st", "status statistics"),
        ("imgdiffd --v", "--version"),
        ("imgdiffd status --", "--json --config --help"),
        ("imgdiffd --config own.toml mini e", "evaluate"),
        ("imgdiffd models ", "list plan pull fit-preview mini paper small compact"),
        ("imgdiffd models pa", "paper"),
        ("imgdiffd models plan s", "small"),
        ("imgdiffd submit a.txt --profile d", "default data-juicer"),
        ("imgdiffd profile p", "paper"),
        ("imgdiffd simulate --placement ", "equal mixed"),
        ("imgdiffd export --kind re", "replacement removal"),
        ("imgdiffd submit ", ""),  # nothing of ours: the shell offers files
    ],
)
def test_commands_options_choices_profiles_and_bundles_complete(
    typed: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offered(typed, monkeypatch, capsys) == expected.split()


def _imgdiffd(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-P", "-m", "imgdiffd", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("shell", "variables", "answer"),
    [
        ("bash", {"COMP_WORDS": "imgdiffd models pa", "COMP_CWORD": "2"}, "paper"),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "imgdiffd models pa"}, "_arguments '*: :((\"paper\"))'"),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "imgdiffd models pa", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "paper",
        ),
    ],
)
def test_each_shell_gets_its_script_and_its_answers(shell: str, variables: dict[str, str], answer: str) -> None:
    script = _imgdiffd("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert f"{COMPLETION}=complete_{shell}" in script
    assert _imgdiffd(**{COMPLETION: f"complete_{shell}"}, **variables) == answer


def test_bash_completes_with_the_script_that_is_shown(tmp_path: Path) -> None:
    program = tmp_path / "imgdiffd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m imgdiffd "$@"\n')
    program.chmod(0o755)
    pressed = """
        eval "$(imgdiffd --show-completion bash)"
        COMP_WORDS=(imgdiffd simulate --placement m) COMP_CWORD=3
        $(complete -p imgdiffd | grep -o '[_a-z]*_completion') imgdiffd
        echo "${COMPREPLY[@]}"
    """
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", pressed], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("mixed\n", "")


@pytest.mark.parametrize(
    ("variables", "said"),
    [({}, "but $COMP_WORDS is not set"), ({"COMP_WORDS": "imgdiffd st", "COMP_CWORD": "x"}, "invalid literal")],
)
def test_completion_without_its_variables_is_one_line(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COMPLETION, "complete_bash")
    monkeypatch.delenv("COMP_WORDS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert said in message
    assert len(message.splitlines()) == 1
