"""What the local cache of the hub holds: found with no network, and what is not there named with its remedy."""

from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from imgdiffd.bundle import load_bundle
from imgdiffd.cli import main
from imgdiffd.hub import presences

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own; whoever asks the network fails."""
    real = partial(snapshot_download, cache_dir=tmp_path)
    monkeypatch.setattr("imgdiffd.hub.snapshot_download", real)
    return tmp_path


def put(cache: Path, source: str) -> None:
    """A snapshot as a download leaves it."""
    folder = cache / f"models--{source.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)


def test_a_hub_id_that_was_never_fetched_is_named_with_the_command_that_does(cache: Path) -> None:
    found = {each.role.value: each.problems for each in presences(load_bundle("paper"))}
    source = "openai/clip-vit-base-patch32"
    assert found["clip"] == (f"{source}: not in the local cache; `hf download {source}` fetches it",)
    assert len(found["painter"]) == 2  # the checkpoint and the other VAE


def test_a_fetched_hub_id_is_here(cache: Path) -> None:
    put(cache, "openai/clip-vit-base-patch32")
    found = {each.role.value: each.problems for each in presences(load_bundle("paper"))}
    assert found["clip"] == ()
    assert found["blip"]


def test_the_miniature_bundle_is_whole_and_a_missing_one_ends_with_its_lines(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["models", "mini"])
    assert "captioner" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["models", "paper"])
    printed = capsys.readouterr()
    assert stopped.value.code == 78
    assert "hf download lmsys/vicuna-13b-v1.5" in printed.out.replace("\n", " ")
    assert "bundle paper is not whole on this machine" in printed.err
