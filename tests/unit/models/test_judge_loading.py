"""Loading a judge: from its table, with the captioner's weights where both name the same, refused with its name."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.errors import BundleError
from imgdiffd.models import loading
from imgdiffd.models.loading import Models, load_models
from imgdiffd.models.sources import weights_of
from imgdiffd.pipeline import Role
from tests.tiny.judge import save_judge


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder whose captioner knows yes and no; `mute` is one that does not."""
    folder = shutil.copytree(tiny_bundle.parent, tmp_path_factory.mktemp("judged"), dirs_exist_ok=True)
    (folder / "captioner").rename(folder / "mute")
    save_judge(folder / "captioner")
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Role]:
    """The roles for which a checkpoint's weights were read."""
    found: list[Role] = []

    def counted(bundle: Bundle, role: Role, *rest: Any) -> Any:
        found.append(role)
        return weights_of(bundle, role, *rest)

    monkeypatch.setattr(loading, "weights_of", counted)
    return found


def loaded(folder: Path, table: str, *roles: Role) -> Models:
    path = folder / "judged.toml"
    path.write_text((folder / "bundle.toml").read_text("utf-8") + f"\n[judge]\n{table}\n", "utf-8")
    return load_models(load_bundle(path), roles, torch.device("cpu"), lambda _: None, compile=False)


@pytest.mark.parametrize(("more", "reads"), [("", 1), ('precision = "bf16"', 2)])
def test_a_judge_that_names_the_captioners_weights_shares_them(
    folder: Path, more: str, reads: int, read: list[Role]
) -> None:
    models = loaded(folder, f'source = "captioner"\nrows_per_pass = 2\n{more}', Role.CAPTIONER, Role.JUDGE)
    assert len(read) == reads
    image = torch.zeros((3, 32, 68), dtype=torch.uint8)
    (judgement,) = models.need_judge.judge([image], "is this a cat ?", 2)
    assert 0 < judgement.yes_probability < 1
    assert models.sources["judge"] == "captioner"


def test_three_roles_of_one_model_read_its_weights_once(
    folder: Path, read: list[Role], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says that it takes as much as they do, since each does where it is alone."""
    monkeypatch.setattr(loading, "_allocated", lambda _: 7 * len(read))
    path = folder / "shared.toml"
    tables = (folder / "bundle.toml").read_text("utf-8").replace('source = "rewriter"', 'same_as = "judge"')
    path.write_text(f'judge = "captioner"\n{tables}', "utf-8")
    roles = (Role.REWRITER, Role.CAPTIONER, Role.JUDGE)
    models = load_models(load_bundle(path), roles, torch.device("cpu"), lambda _: None, compile=False)
    assert read == [Role.REWRITER]
    assert models.weights_bytes == {role: 7 for role in roles}
    assert models.need_rewriter._model is models.need_captioner._model is models.need_judge._model


def test_a_judges_own_template_is_taken_and_tried_at_once(folder: Path) -> None:
    template = "{{ 1 / 0 }}"
    with pytest.raises(BundleError, match=r"judge: captioner: its chat template refuses .*: division by zero"):
        loaded(folder, f'source = "captioner"\nchat_template = "{template}"', Role.JUDGE)


def test_a_judge_that_cannot_tell_yes_from_no_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match="bundle tiny: judge: mute: its tokenizer has no token for yes"):
        loaded(folder, 'source = "mute"', Role.JUDGE)


@pytest.mark.parametrize("name", ["paper", "small"])
def test_a_shipped_bundles_example_judge_is_complete(name: str, tmp_path: Path) -> None:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    lines = load_bundle(name).path.read_text("utf-8").splitlines()
    begin = lines.index("# [judge]")
    shown = [line.removeprefix("# ") for line in lines[begin:]]
    path = tmp_path / "judged.toml"
    path.write_text("\n".join([*lines[:begin], *shown]), "utf-8")
    judge = load_bundle(path).judge
    assert judge is not None
    assert (judge.source, judge.precision) == ("OpenGVLab/InternVL3-8B-hf", "bf16")
    text = {
        "model_type": "qwen2",  # Qwen2.5-7B's sizes, and 30 more tokens for images and boxes
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 151_674,
    }
    vision = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    with torch.device("meta"):
        config = InternVLConfig(
            text_config=text, vision_config={**vision, "attention_bias": True}, tie_word_embeddings=False
        )
        elements = sum(weight.numel() for weight in InternVLForConditionalGeneration(config).parameters())
    assert judge.weights_gb == pytest.approx(2 * elements / 1e9, rel=0.001)
