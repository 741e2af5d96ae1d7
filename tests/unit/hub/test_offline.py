"""Models that a bundle names by hub id: once fetched they load with no network, and play as the folders would."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.errors import BundleError
from imgdiffd.hub import cached, problems
from imgdiffd.hub.pulling import pull
from imgdiffd.models.loading import Models, load_models
from imgdiffd.pipeline import Role
from tests.fakes.hub import FakeHub, fake_hub, use
from tests.tiny import models as tiny_models
from tests.tiny.sdxl import tiny_sdxl

CPU = torch.device("cpu")
ROLES = [Role.REWRITER, Role.PAINTER, Role.SEGMENTER, Role.CLIP, Role.BLIP, Role.CAPTIONER, Role.ERASER]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every role's tiny model in a folder of its own, and a bundle that names them as folders."""
    folder = tmp_path_factory.mktemp("folders")
    tiny_sdxl(folder / "painter")
    shutil.copytree(folder / "painter" / "vae", folder / "vae")
    path = tiny_models.save_all(folder)
    path.write_text(path.read_text("utf-8") + '\n[eraser]\nsource = "painter"\n', "utf-8")
    return folder


@pytest.fixture
def hub(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr("imgdiffd.models.loading.silence", lambda: None)  # it forbids the network for good
        for folder in folders.iterdir():
            if folder.is_dir():
                hub.add_folder(f"tiny/{folder.name}", folder)
        yield hub


@pytest.fixture
def by_id(folders: Path, tmp_path: Path) -> Path:
    """The same bundle by hub ids."""
    text = (folders / "bundle.toml").read_text("utf-8").replace('source = "', 'source = "tiny/')
    text = text.replace('source = "tiny/painter"', 'source = "tiny/painter"\nvae = "tiny/vae"')
    path = tmp_path / "bundle.toml"
    path.write_text(text, "utf-8")
    return path


def loaded(path: Path, *roles: Role) -> Models:
    return load_models(load_bundle(path), roles, CPU, lambda _: None, compile=False)


def refuse(*_: object) -> None:
    raise AssertionError("the network was asked")


def weights(models: Models) -> list[torch.Tensor]:
    """Some of each."""
    held = (models.need_rewriter, models.need_clip, models.need_blip, models.need_captioner)
    networks = [each._model for each in held]
    networks += [models.need_painter.sdxl.unet, models.need_painter.sdxl.vae]
    return [next(iter(network.state_dict().values())) for network in networks]


def test_fetched_models_load_without_a_network(
    hub: FakeHub, by_id: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(load_bundle(by_id), lambda _: None)
    hub.asked.clear()
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", refuse)
        models = loaded(by_id, *ROLES)
    assert hub.asked == []
    assert models.sources["clip"] == "tiny/clip"
    assert models.segmenter is not None
    assert models.need_eraser.sdxl is models.need_painter.sdxl
    for ours, theirs in zip(weights(models), weights(loaded(folders / "bundle.toml", *ROLES)), strict=True):
        assert torch.equal(ours, theirs)


def test_unfetched_models_are_named_without_asking_the_network(hub: FakeHub, by_id: Path) -> None:
    for role in ROLES:
        with pytest.raises(BundleError, match=rf"{role}: tiny/\w+: not in the local cache") as caught:
            loaded(by_id, role)
        assert f"imgdiffd models pull {by_id}" in str(caught.value)
    assert hub.asked == []


def test_a_worker_names_the_painter_whose_tokenizer_it_lacks(hub: FakeHub, by_id: Path) -> None:
    pull(load_bundle(by_id), lambda _: None)
    snapshot = cached("tiny/painter", None)
    assert snapshot is not None
    shutil.rmtree(snapshot.parents[1])
    with pytest.raises(BundleError, match="painter: tiny/painter: not in the local cache"):
        loaded(by_id, Role.CLIP)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_missing_from_the_cache_is_named_with_the_command(hub: FakeHub, by_id: Path, name: str) -> None:
    bundle = load_bundle(by_id)
    pull(bundle, lambda _: None)
    folder = cached("tiny/blip", None)
    assert folder is not None
    (folder / name).unlink()
    with pytest.raises(BundleError) as caught:
        loaded(by_id, Role.BLIP)
    assert str(caught.value).startswith(f"bundle tiny: blip: {folder}")
    assert f"`imgdiffd models pull {by_id}`" in str(caught.value)
    pull(bundle, lambda _: None)
    assert problems(bundle) == []


@pytest.mark.parametrize("role", [Role.CLIP, Role.PAINTER])
def test_a_damaged_cached_file_is_named_with_the_command(hub: FakeHub, by_id: Path, role: Role) -> None:
    bundle = load_bundle(by_id)
    pull(bundle, lambda _: None)
    folder = cached(f"tiny/{role}", None)
    assert folder is not None
    name = "tokenizer.json" if role is Role.CLIP else "unet/config.json"
    (folder / name).resolve().write_text("{", "utf-8")
    with pytest.raises(BundleError, match=f"bundle tiny: {role}: ") as caught:
        loaded(by_id, role)
    assert f"`imgdiffd models pull {by_id}`" in str(caught.value)
    pull(bundle, lambda _: None)
    assert loaded(by_id, role).sources == {role.value: f"tiny/{role}"}
