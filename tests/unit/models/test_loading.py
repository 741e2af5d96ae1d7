"""Loading a bundle: the right classes from plain folders, and every fault named with role, file and what to do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.errors import BundleError, StageError
from imgdiffd.models.loading import Models, load_models
from imgdiffd.models.sources import dtype_for
from imgdiffd.pipeline import OPTIONAL_ROLES, Role
from tests.tiny import models as tiny_models

CPU = torch.device("cpu")
NEEDED = [role for role in Role if role not in OPTIONAL_ROLES]


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of this test's own, to be damaged."""
    shutil.copytree(tiny_bundle.parent, tmp_path / "copied")
    return tmp_path / "copied" / "bundle.toml"


def loaded(path: Path, *roles: Role, said: list[str] | None = None) -> Models:
    told = [] if said is None else said
    return load_models(load_bundle(path), roles, CPU, told.append, compile=False)


def test_every_role_is_loaded_and_said_and_its_source_recorded(tiny_bundle: Path) -> None:
    said: list[str] = []
    models = loaded(tiny_bundle, *NEEDED, said=said)
    held = [models.need_rewriter, models.need_painter, models.need_segmenter]
    held += [models.need_clip, models.need_blip, models.need_captioner]
    assert len(held) == len(NEEDED)
    assert said == [f"{role}: {role}" for role in NEEDED]
    assert models.sources == {role.value: role.value for role in NEEDED}


def test_what_a_checkpoint_suggests_in_vain_is_noted(copied: Path) -> None:
    file = copied.parent / "rewriter" / "generation_config.json"
    config = {**json.loads(file.read_text("utf-8")), "do_sample": True, "temperature": 0.7, "top_p": 0.8}
    notes: list[str] = []
    for added in ({}, {"repetition_penalty": 1.05, "top_k": 20}):
        file.write_text(json.dumps({**config, **added}))
        load_models(load_bundle(copied), [Role.REWRITER], CPU, lambda _: None, compile=False, note=notes.append)
    assert notes == [
        "the rewriter's checkpoint suggests repetition_penalty 1.05, top_k 20: not used, only the profile says how "
        "tokens are chosen"
    ]


def test_roles_not_asked_for_are_not_loaded_but_the_tokenizer_is(tiny_bundle: Path) -> None:
    models = loaded(tiny_bundle, Role.CLIP)
    assert models.clip is not None
    assert models.painter is None
    assert models.sources == {"clip": "clip"}
    assert models.tokenizer("a red ball").input_ids
    with pytest.raises(StageError, match="the painter is not loaded on this worker"):
        _ = models.need_painter


def test_roles_not_asked_for_may_be_missing(copied: Path) -> None:
    shutil.rmtree(copied.parent / "captioner")
    assert loaded(copied, Role.CLIP).clip is not None


def test_precision_is_half_on_cuda_and_single_elsewhere() -> None:
    assert dtype_for(torch.device("cuda", 1)) is torch.float16
    assert dtype_for(CPU) is torch.float32


@pytest.mark.parametrize("role", [Role.REWRITER, Role.CLIP, Role.BLIP, Role.CAPTIONER])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named_with_its_role(copied: Path, role: Role, file: str) -> None:
    (copied.parent / role / file).unlink()
    with pytest.raises(BundleError) as caught:
        loaded(copied, role)
    assert str(copied.parent / role) in str(caught.value)
    assert str(role) in str(caught.value)
    assert caught.value.hint


def test_a_cut_file_is_named(copied: Path) -> None:
    weights = copied.parent / "captioner" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BundleError, match=f"captioner: {weights}: damaged"):
        loaded(copied, Role.CAPTIONER)


@pytest.mark.parametrize("file", ["tokenizer.json", "preprocessor_config.json"])
def test_a_damaged_side_file_is_a_bundle_error_of_that_role(copied: Path, file: str) -> None:
    (copied.parent / "clip" / file).write_text("{", "utf-8")
    with pytest.raises(BundleError, match=f"bundle tiny: clip: {copied.parent}/clip/{file}: damaged: "):
        loaded(copied, Role.CLIP)


def test_weights_that_lack_a_tensor_are_refused(copied: Path) -> None:
    path = copied.parent / "rewriter" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(BundleError, match=r"rewriter.*lack 1 tensors, model.layers.1.mlp.up_proj.weight"):
        loaded(copied, Role.REWRITER)


def test_pickled_weights_are_not_loaded(copied: Path) -> None:
    folder = copied.parent / "rewriter"
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="pickled weights are not loaded"):
        loaded(copied, Role.REWRITER)


def test_code_that_comes_with_a_model_is_not_run(copied: Path, tmp_path: Path) -> None:
    folder = copied.parent / "rewriter"
    (folder / "configuration_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", "utf-8")
    text = (folder / "config.json").read_text("utf-8").replace('"model_type": "llama"', '"model_type": "own"')
    own = '"auto_map": {"AutoConfig": "configuration_own.Own"}, "model_type"'
    (folder / "config.json").write_text(text.replace('"model_type"', own, 1), "utf-8")
    with pytest.raises(BundleError, match="bundle tiny: rewriter: rewriter: "):
        loaded(copied, Role.REWRITER)
    assert not (tmp_path / "ran").exists()


def test_a_segmenter_that_would_run_code_is_refused(copied: Path, tmp_path: Path) -> None:
    class Sly:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model": Sly()}, copied.parent / "segmenter" / "tiny-seg.pt")
    with pytest.raises(BundleError, match=r"segmenter: .*tiny-seg.pt: refused: .*posix.mkdir"):
        loaded(copied, Role.SEGMENTER)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_without_chat_template_needs_the_bundles(copied: Path) -> None:
    shutil.rmtree(copied.parent / "rewriter")
    tiny_models.save_rewriter(copied.parent / "rewriter", chat_template=None)
    with pytest.raises(BundleError, match=r"no chat template \(set chat_template under \[rewriter\]"):
        loaded(copied, Role.REWRITER)
    template = "chat_template = \"{% for m in messages %}USER: {{ m['content'] }} ASSISTANT:{% endfor %}\"\n"
    text = copied.read_text("utf-8").replace("[rewriter]\n", "[rewriter]\n" + template)
    copied.write_text(text, "utf-8")
    assert loaded(copied, Role.REWRITER).rewriter is not None


def test_an_uncached_hub_model_is_named_when_offline(copied: Path) -> None:
    text = copied.read_text("utf-8").replace('source = "blip"', 'source = "somebody/some-blip"\nrevision = "abc"')
    copied.write_text(text, "utf-8")
    code = (
        "import sys, torch\nfrom imgdiffd.bundles.bundle import load_bundle\n"
        "from imgdiffd.models.loading import load_models;"
        "from imgdiffd.pipeline import Role; from imgdiffd.errors import BundleError\n"
        "try: load_models(load_bundle(sys.argv[1]), [Role.BLIP], torch.device('cpu'), lambda text: None, False)\n"
        "except BundleError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(copied.parent), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(copied)], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
    assert ended.stdout.startswith("bundle tiny: blip: somebody/some-blip@abc: not in the local cache")
    assert f"imgdiffd models pull {copied}" in ended.stdout


def test_loading_says_nothing_on_stderr(tiny_bundle: Path) -> None:
    code = (
        "import sys, torch\nfrom imgdiffd.bundles.bundle import load_bundle\n"
        "from imgdiffd.models.loading import load_models;"
        "from imgdiffd.pipeline import Role;"
        "load_models(load_bundle(sys.argv[1]), list(Role)[:6], torch.device('cpu'), lambda text: None, False)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tiny_bundle)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def pickled(folder: Path) -> None:
    """The rewriter's weights as a pickle, the safetensors file gone."""
    weights = folder / "rewriter" / "model.safetensors"
    torch.save(load_file(weights), folder / "rewriter" / "pytorch_model.bin")
    weights.unlink()


def test_pickles_are_refused_with_the_key_that_allows_them(copied: Path) -> None:
    pickled(copied.parent)
    with pytest.raises(BundleError, match=r"rewriter: no \.safetensors file .*allow_pickle = true") as refused:
        loaded(copied, Role.REWRITER)
    assert "\n" not in str(refused.value)


def test_allowed_pickles_give_the_same_weights(copied: Path, tiny_bundle: Path) -> None:
    pickled(copied.parent)
    copied.write_text(copied.read_text("utf-8").replace("[rewriter]", "[rewriter]\nallow_pickle = true"), "utf-8")
    ours, wanted = (loaded(path, Role.REWRITER).need_rewriter for path in (copied, tiny_bundle))
    for one, other in zip(ours._model.parameters(), wanted._model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_pickle_with_code_is_refused_even_where_pickles_are_ok(copied: Path) -> None:
    pickled(copied.parent)
    copied.write_text(copied.read_text("utf-8").replace("[rewriter]", "[rewriter]\nallow_pickle = true"), "utf-8")
    torch.save({"lm_head.weight": shutil.rmtree}, copied.parent / "rewriter" / "pytorch_model.bin")
    with pytest.raises(BundleError, match="rewriter"):
        loaded(copied, Role.REWRITER)


@pytest.mark.parametrize(("precision", "dtype"), [("auto", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_a_role_has_the_precision_that_its_bundle_names(copied: Path, precision: str, dtype: str) -> None:
    copied.write_text(copied.read_text("utf-8").replace("[clip]", f'[clip]\nprecision = "{precision}"'), "utf-8")
    assert loaded(copied, Role.CLIP).need_clip._model.dtype == getattr(torch, dtype)
