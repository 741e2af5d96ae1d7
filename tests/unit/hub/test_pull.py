"""Fetching a bundle's models from a hub: only what is read, each byte once, and every refusal with what to do."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.cli.main import main
from imgdiffd.errors import BundleError
from imgdiffd.hub import cached, problems
from imgdiffd.hub.pulling import pull
from tests.fakes.hub import FakeHub, fake_hub, tensor_file, use

WEIGHTS = tensor_file(4000)
TEXT_MODEL = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS, "model.onnx": bytes(9000)}
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "image_encoder": [None, None],
}
PIPELINE = {
    "model_index.json": json.dumps(INDEX).encode(),
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": tensor_file(5000),
    "unet/diffusion_pytorch_model.fp16.safetensors": tensor_file(2500),
    "tokenizer/vocab.json": b"{}",
    "everything.safetensors": tensor_file(8000),
}
VAE = {"config.json": b"{ }", "diffusion_pytorch_model.safetensors": tensor_file(1500)}
SOURCES = {
    "rewriter": "own/chat",
    "painter": "own/sdxl",
    "segmenter": "own/seg",
    "clip": "own/clip",
    "blip": "own/blip",
    "captioner": "own/chat",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # before it tries again
        hub.repositories = {"own/sdxl": PIPELINE, "own/vae": VAE, "own/seg": {"s.pt": bytes(2000), "m.pt": bytes(3000)}}
        hub.repositories |= {name: dict(TEXT_MODEL) for name in ("own/chat", "own/clip", "own/blip")}
        yield hub


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return written(tmp_path)


def written(folder: Path, old: str = "", new: str = "") -> Bundle:
    keys = {"segmenter": 'file = "s.pt"\n', "painter": 'variant = "fp16"\nvae = "own/vae"\n'}
    text = "\n".join(f'[{role}]\nsource = "{source}"\n{keys.get(role, "")}' for role, source in SOURCES.items())
    (folder / "bundle.toml").write_text('name = "tiny"\n' + text.replace(old, new), "utf-8")
    return load_bundle(folder)


def pulled(bundle: Bundle) -> list[str]:
    said: list[str] = []
    pull(bundle, said.append)
    return said


def refused(bundle: Bundle) -> str:
    with pytest.raises(BundleError) as caught:
        pull(bundle, lambda _: None)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_hub_id_is_fetched_and_nothing_unread(hub: FakeHub, bundle: Bundle) -> None:
    said = pulled(bundle)
    assert problems(bundle) == []
    names = {source: {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
             for source in hub.repositories if (folder := cached(source, None))}  # fmt: skip
    text = {"config.json", "tokenizer.json", "model.safetensors"}
    assert names == {
        "own/chat": text,
        "own/clip": text,
        "own/blip": text,
        "own/vae": set(VAE),
        "own/seg": {"s.pt"},
        "own/sdxl": {"model_index.json", "unet/config.json", "tokenizer/vocab.json"}
        | {"unet/diffusion_pytorch_model.fp16.safetensors"},
    }
    assert said[-1].startswith(f"{len(said)}/{len(said)} own/")
    weights = cached("own/chat", None)
    assert weights is not None
    assert (weights / "model.safetensors").read_bytes() == WEIGHTS


def test_a_painters_preview_is_fetched_like_its_autoencoder(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["own/tiny"] = dict(VAE)
    bundle = written(tmp_path, 'vae = "own/vae"', 'vae = "own/vae"\npreview = "own/tiny"')
    assert any("painter: own/tiny: not in the local cache" in problem for problem in problems(bundle))
    pulled(bundle)
    folder = cached("own/tiny", None)
    assert folder is not None
    assert {path.name for path in folder.iterdir()} == set(VAE)
    assert problems(bundle) == []


def test_what_is_whole_is_not_fetched_again(hub: FakeHub, bundle: Bundle) -> None:
    pulled(bundle)
    hub.fetched.clear()
    assert pulled(bundle) == []
    assert hub.fetched == []


def test_a_pinned_revision_is_found_by_that_revision(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.commit("own/clip")
    bundle = written(tmp_path, '"own/clip"', f'"own/clip"\nrevision = "{commit}"')
    pulled(bundle)
    assert cached("own/clip", commit) is not None
    assert cached("own/clip", None) is None
    assert problems(bundle) == []


def interrupt(_: float) -> None:
    raise KeyboardInterrupt


def test_after_an_interruption_the_next_call_resumes(
    hub: FakeHub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.file_download.time.sleep", interrupt)
        hub.cut_at = 2000  # then the connection breaks
        with pytest.raises(KeyboardInterrupt):
            pulled(bundle)
    assert any("own/blip: not in the local cache" in line for line in problems(bundle))
    hub.cut_at = None
    hub.fetched.clear()
    pulled(bundle)
    assert problems(bundle) == []
    (resumed,) = [line for line in hub.fetched if "bytes=" in line]
    assert resumed.endswith("bytes=2000-")
    assert len(hub.fetched) == len({line.split()[0] for line in hub.fetched})


def test_a_broken_connection_is_resumed_within_the_call(hub: FakeHub, bundle: Bundle) -> None:
    hub.cut_at = 1500
    pulled(bundle)
    assert problems(bundle) == []
    assert any(line.endswith("bytes=1500-") for line in hub.fetched)


def test_a_new_version_replaces_the_old_only_when_whole(
    hub: FakeHub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled(bundle)
    old = cached("own/clip", None)
    hub.repositories["own/clip"]["model.safetensors"] = tensor_file(6000)
    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.file_download.time.sleep", interrupt)
        hub.cut_at = 2000
        with pytest.raises(KeyboardInterrupt):
            pulled(bundle)
    assert cached("own/clip", None) == old
    assert problems(bundle) == []
    hub.cut_at = None
    assert len(pulled(bundle)) == 1
    assert cached("own/clip", None) != old
    assert problems(bundle) == []


@pytest.mark.parametrize("damaged", [WEIGHTS[:-100], b"\xff" * len(WEIGHTS)])
def test_a_damaged_file_alone_is_fetched_again(hub: FakeHub, bundle: Bundle, damaged: bytes) -> None:
    pulled(bundle)
    folder = cached("own/clip", None)
    assert folder is not None
    (folder / "model.safetensors").resolve().write_bytes(damaged)
    assert any(str(folder / "model.safetensors") in line for line in problems(bundle))
    hub.fetched.clear()
    assert pulled(bundle) == ["1/1 own/clip: model.safetensors, 0.00 MB"]
    assert len(hub.fetched) == 1
    assert problems(bundle) == []


def test_bytes_with_a_wrong_hash_are_discarded(hub: FakeHub, bundle: Bundle) -> None:
    pulled(bundle)
    folder = cached("own/clip", None)
    assert folder is not None
    blob = (folder / "model.safetensors").resolve()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(b"x" * 1000)  # as many as a part would have, but others
    blob.unlink()
    assert "own/clip: model.safetensors arrived damaged" in refused(bundle)
    pulled(bundle)
    assert problems(bundle) == []


def test_too_little_room_is_refused_before_anything_large_comes(
    hub: FakeHub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgdiffd.hub.pulling.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    text = refused(bundle)
    assert "0.02 MB are to be fetched, 0.01 MB are free" in text
    assert "HF_HOME" in text
    assert not [line for line in hub.fetched if "safetensors" in line]


def test_the_token_goes_to_the_hub_only(hub: FakeHub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pulled(bundle)
    assert hub.tokens == {"Bearer hf_secret", None}  # small files, large ones


def test_a_gated_repository_is_named_with_the_page_and_the_login(hub: FakeHub, bundle: Bundle) -> None:
    hub.gated = {"own/blip"}
    text = refused(bundle)
    assert text.startswith("bundle tiny: blip: own/blip: gated (accept its terms on ")
    assert f"{hub.url}/own/blip" in text
    assert "hf auth login" in text
    assert not [line for line in hub.fetched if "safetensors" in line]


def test_an_unknown_repository_is_named_with_its_role(hub: FakeHub, tmp_path: Path) -> None:
    text = refused(written(tmp_path, "own/blip", "own/nothing"))
    assert text.startswith("bundle tiny: blip: own/nothing: no such repository, or a private one")
    assert str(tmp_path / "bundle.toml") in text


def test_a_wrong_revision_is_named(hub: FakeHub, tmp_path: Path) -> None:
    text = refused(written(tmp_path, '"own/blip"', '"own/blip"\nrevision = "v9"'))
    assert text.startswith("bundle tiny: blip: own/blip: no revision v9 (correct revision in ")


def test_a_repository_without_readable_weights_names_the_key(hub: FakeHub, bundle: Bundle) -> None:
    hub.repositories["own/blip"] = {"config.json": b"{}", "pytorch_model.bin": bytes(2000)}
    assert "blip: own/blip: it has no safetensors weights (it has pickles; allow_pickle = true" in refused(bundle)


def test_no_network_is_one_line(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # bound, so that nobody else answers at its address
        silent.bind(("127.0.0.1", 0))
        use(FakeHub(f"http://127.0.0.1:{silent.getsockname()[1]}"), tmp_path / "cache", monkeypatch)
        text = refused(bundle)
    assert text.startswith("bundle tiny: rewriter: own/chat: the hub cannot be reached: ")


def test_offline_mode_is_named(hub: FakeHub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "unset HF_HUB_OFFLINE" in refused(bundle)


def test_the_command_names_each_file_and_how_ctrl_c_resumes(
    hub: FakeHub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("huggingface_hub.file_download.time.sleep", interrupt)
        hub.cut_at = 2000
        with pytest.raises(SystemExit) as stopped:
            main(["models", "pull", str(bundle.path)])
    assert stopped.value.code == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    hub.cut_at = None
    main(["models", "pull", str(bundle.path)])
    printed = capsys.readouterr()
    assert "own/sdxl: unet/diffusion_pytorch_model.fp16.safetensors, 0.00 MB" in printed.out
    assert printed.out.endswith("bundle tiny is whole on this machine\n")
    assert printed.err == ""
    main(["models", str(bundle.path)])
