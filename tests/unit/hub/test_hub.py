"""What the local cache of the hub holds: found with no network, and what is not there named with its remedy."""

from pathlib import Path

import anyio
import pytest

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.cli.main import main
from imgdiffd.daemon.serve import serve
from imgdiffd.errors import BundleError
from imgdiffd.hub import presences
from imgdiffd.settings import Settings
from tests.fakes.hub import safetensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put(cache: Path, source: str) -> Path:
    """A snapshot with weights, as a download leaves it; its folder."""
    folder = cache / f"models--{source.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    safetensors(snapshot / "model.safetensors")
    return snapshot


def found(bundle: str = "paper") -> dict[str, tuple[str, ...]]:
    return {each.role.value: each.problems for each in presences(load_bundle(bundle))}


def test_a_hub_id_that_was_never_fetched_is_named(cache: Path) -> None:
    assert found()["clip"] == ("openai/clip-vit-base-patch32: not in the local cache",)
    assert len(found()["painter"]) == 2  # the checkpoint and the other VAE


def test_a_fetched_hub_id_is_here(cache: Path) -> None:
    put(cache, "openai/clip-vit-base-patch32")
    assert found()["clip"] == ()
    assert found()["blip"]


def test_a_damaged_file_of_a_fetched_hub_id_is_named(cache: Path) -> None:
    snapshot = put(cache, "openai/clip-vit-base-patch32")
    safetensors(snapshot / "model.safetensors", 30)
    (line,) = found()["clip"]
    assert line.startswith(f"{snapshot / 'model.safetensors'}: damaged")


def test_the_mini_bundle_is_whole_and_a_missing_one_is_explained(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["models", "mini"])
    assert "captioner" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["models", "paper"])
    printed = capsys.readouterr()
    assert stopped.value.code == 78
    line = "rewriter: lmsys/vicuna-13b-v1.5: not in the local cache; `imgdiffd models pull paper`"
    assert line in printed.out
    assert "bundle paper is not whole on this machine" in printed.err


def test_check_names_a_missing_hub_model(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGDIFFD_CONFIG", "/dev/null")
    monkeypatch.setenv("IMGDIFFD_BUNDLE", "paper")
    with pytest.raises(SystemExit) as stopped:
        main(["check"])
    assert stopped.value.code == 78
    assert "rewriter: lmsys/vicuna-13b-v1.5: not in the local cache" in " ".join(capsys.readouterr().out.split())


def test_the_daemon_names_a_missing_hub_model_before_it_starts(cache: Path, tmp_path: Path) -> None:
    settings = Settings(state_folder=tmp_path / "state", inbox_folder=tmp_path / "inbox", bundle="paper")
    with pytest.raises(BundleError, match=r"bundle paper: rewriter: lmsys/vicuna-13b-v1.5: not in the local cache"):
        anyio.run(serve, settings)
    assert not (tmp_path / "state").exists()
