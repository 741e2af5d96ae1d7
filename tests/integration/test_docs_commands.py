"""The commands of the pages do what the pages say, beside a daemon with fake workers."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imgdiffd.cli.main import main
from tests.integration.daemon_process import daemon, drop
from tests.reference.pages import PAGES, ROOT, RUN, Block, blocks, prose

STATE = "/var/lib/imgdiffd"  # what the pages call the state folder
OWN_PROFILE = 'extends = "default"\nseed = 7\n'
OTHERS = [{"id": "1", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hello."}]}]
OPTION = re.compile(r"(?<!\S)--[a-z][\w-]*")
TYPED = re.compile(r"^(?:sudo .*)?imgdiffd ((?:models|mini) (?:pull|plan|evaluate|calibrate)|[a-z]+)\b([^\n;#]*)", re.M)


@dataclass(frozen=True)
class Shell:
    """A folder with a user's files, beside a daemon whose first job is done and whose second waits: work is paused."""

    folder: Path
    state: Path

    def type(self, line: str, capsys: pytest.CaptureFixture[str]) -> str:
        """What one command line printed; it must end well. `imgdiffd` runs in this process, which saves its start."""
        words = shlex.split(self.here(line), comments=True)
        if words[:1] != ["imgdiffd"]:
            return self.run("sh", "-ec", line)
        try:
            main(words[1:])
        except SystemExit as end:
            if end.code:
                pytest.fail(f"{line}\n{capsys.readouterr().err}")
        return capsys.readouterr().out

    def run(self, *command: str) -> str:
        """What a program printed; it must end well."""
        done = subprocess.run([self.here(word) for word in command], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def here(self, text: str) -> str:
        """The page's paths as this shell has them."""
        return text.replace(f"{STATE}/imgdiffd.sock", str(self.state / "s")).replace(STATE, str(self.state))


@pytest.fixture
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("docs")
    state = folder / "state"
    (folder / ".curlrc").write_text("fail\n")  # a refusal is a failure
    (folder / "own.toml").write_text(OWN_PROFILE)
    shutil.copy(ROOT / "tests" / "data" / "coco_captions_6.json", folder / "captions.json")
    (folder / "llava_v1_5_mix665k.json").write_text(json.dumps(OTHERS))
    (folder / "pages.jsonl").write_text('{"title": "a cat under a table"}\n')
    (folder / "pages.json").write_text('[{"meta": {"en": "a cat on a table"}}]')
    (folder / "Train-GCC-training.tsv").write_text("a cat behind a table\thttp://localhost/1.jpg\n")
    with daemon(state) as running:
        drop(state, "first.txt", ["a dog on a red sofa", "a bowl of soup beside a lamp"])
        running.wait_done()
        running.client.set_paused(True)
        (folder / "second.txt").write_text("a cup beside a plant\n")
        running.client.submit(folder / "second.txt")
        yield Shell(folder, state)


@pytest.fixture
def shell(user: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(user.folder)
    monkeypatch.setenv("HOME", str(user.folder))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_DEVICES", "cpu,cpu")
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(user.state))
    monkeypatch.setenv("IMGDIFFD_SOCKET_PATH", str(user.state / "s"))
    return user


def steps(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that the page shows."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def words(text: str) -> list[list[str]]:
    """The words of each line that has any; rules and widths of columns do not count."""
    return [line.split() for line in text.replace("─", "").splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work_and_print_what_it_shows(
    page: Path, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(page):
        if block.reason or block.language not in RUN or ("curl" in block.text and shutil.which("curl") is None):
            continue
        if block.language == "sh":
            for line in block.text.splitlines():
                shell.type(line, capsys)
        elif block.language == "python":
            shell.run(sys.executable, "-P", "-c", block.text)
        else:
            for command, shown in steps(block):
                assert words(shell.type(command, capsys)) == words(shown), block.where


def test_every_command_and_option_that_the_pages_name_exists(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    named: dict[str, set[str]] = {}
    for page in PAGES:
        typed = [block.text for block in blocks(page) if block.language == "sh"]
        quoted = re.findall(r"`(imgdiffd [^`\n]+)`", prose(page))
        for command, rest in TYPED.findall("\n".join(typed + quoted)):
            named.setdefault(command, set()).update(OPTION.findall(rest))
    assert len(named) > 15
    unknown = []
    for command, options in named.items():
        help_text = shell.type(f"imgdiffd {command} --help", capsys)
        unknown += [f"{command} {option}" for option in sorted(options - {"--help"}) if option not in help_text]
    assert unknown == []
