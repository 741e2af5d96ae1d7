"""What the pages say is there is there: tests, files, links, make targets, settings, profiles, bundles, formats."""

import io
import json
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.captions import read_open
from imgdiffd.export import release
from imgdiffd.export.formats.release import record
from imgdiffd.export.sample import Choice, samples
from imgdiffd.job import CaptionRecord
from imgdiffd.method import removal
from imgdiffd.method.profile import load_profile
from imgdiffd.settings import load_settings
from tests.fakes.made_samples import MadeSamples
from tests.reference import http_page
from tests.reference.pages import PAGES, ROOT, RUN, Block, anchors, blocks, prose

BLOCKS = tuple(block for page in PAGES for block in blocks(page))
NAMED_TEST = re.compile(r"`([a-z]+/[\w/]*test_\w+\.py)::(test_\w+)`")
NAMED_PATH = re.compile(r"`((?:imgdiffd|tests|schedulers|kernels|docs|systemd)/[\w./-]*)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def of(language: str) -> tuple[Block, ...]:
    return tuple(block for block in BLOCKS if block.language == language)


def test_setting_up_says_what_it_does_and_shows_progress() -> None:
    done = subprocess.run(
        ["make", "-n", "-B", "UV=uv", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (sync,) = (number for number, line in enumerate(done) if "uv sync" in line)
    assert "--quiet" not in done[sync]
    assert "setting up .venv" in done[sync - 1]


def test_every_fault_names_a_test_that_exists() -> None:
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text("utf-8").splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 23
    missing = []
    for row in rows:
        named = NAMED_TEST.findall(row)
        assert named, row
        for file, test in named:
            path = ROOT / "tests" / file
            if not path.is_file() or f"def {test}(" not in path.read_text("utf-8"):
                missing.append(f"{file}::{test}")
    assert missing == []


def test_every_file_and_folder_named_exists() -> None:
    named = {path for page in PAGES for path in NAMED_PATH.findall(prose(page))}
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_python_name_can_be_imported() -> None:
    text = "".join(page.read_text("utf-8") for page in (*PAGES, ROOT / "CHANGELOG.md"))
    named = set(re.findall(r"`(imgdiffd(?:\.\w+)+)`", text)) - {"imgdiffd.sock", "imgdiffd.toml"}
    assert len(named) > 4
    for name in sorted(named):
        assert pkgutil.resolve_name(name)


def test_every_link_and_anchor_leads_somewhere() -> None:
    dead = []
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            file, _, anchor = target.partition("#")
            path = (page.parent / file).resolve() if file else page
            if not target.startswith("https://") and (not path.is_file() or (anchor and anchor not in anchors(path))):
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [str(page) for page in PAGES[1:] if f"({page.relative_to(ROOT)})" not in readme] == []


def test_every_block_has_a_known_language_and_every_mark_a_block() -> None:
    known = {*RUN, "toml", "json", "text"}
    assert [block.where for block in BLOCKS if block.language not in known] == []
    marks = sum(page.read_text("utf-8").count("<!-- not run") for page in PAGES)
    assert marks == sum(bool(block.reason) for block in BLOCKS)


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"\bmake ([a-z][\w-]*)`", page.read_text("utf-8"))}
    typed = {target for block in of("sh") for target in re.findall(r"\bmake ([a-z][\w-]*)", block.text)}
    assert len(named) > 5
    assert (named | typed) - targets == set()


@pytest.mark.parametrize("block", of("toml"), ids=lambda block: block.where)
def test_every_toml_example_is_read_by_what_reads_it(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(block.text)
    data = tomllib.loads(block.text)
    if "rewriter" in data:
        assert load_bundle(path).path == path
    elif "extends" in data:
        assert load_profile(str(path)).name == data.get("name", path.stem)
    else:
        assert load_settings(path, {}).bundle == data["bundle"]


def test_every_json_example_of_the_captions_page_is_read_whole() -> None:
    shown = [block for block in of("json") if block.page.name == "captions.md"]
    assert len(shown) == 5
    for block in shown:
        entries = read_open(io.BytesIO(block.text.encode()), "example.json")
        assert all(isinstance(entry, CaptionRecord) for entry in entries), block.where


def test_the_samples_shown_are_as_the_export_writes_them(tmp_path: Path) -> None:
    sample, erased = (json.loads(block.text) for block in of("json") if block.page.name == "output.md")
    made = MadeSamples(tmp_path, [1])
    assert list(sample) == list(record(next(samples(made, Choice()))))
    assert sample["conversations"][0]["value"] == release.QUESTION
    assert set(erased) == {"bbox", "conversations", "path"}
    assert erased["conversations"][0]["value"] == removal.QUESTION.replace("{caption}", "a green cube")


def test_the_http_reference_is_what_the_api_says() -> None:
    assert http_page.PAGE.read_text("utf-8") == http_page.page(), f"stale: run `{http_page.COMMAND}`"
