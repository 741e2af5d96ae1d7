"""Models on CUDA: graphed and compiled steps give what plain ones do."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Generate
from imgdiffd.models.loading import compile_models, load_models
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.pipeline import Role
from tests.tiny import models as tiny_models
from tests.tiny.sdxl import IMAGE_PX, tiny_sdxl

PAIRS = [PairPrompt("a red ball", "a blue ball", 1), PairPrompt("a cat on grass", "a dog on grass", 2)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sdxl(tmp_path_factory.mktemp("painter"))


def painter(checkpoint: Path) -> Painter:
    return Painter.load(str(checkpoint), torch.device("cuda"), torch.float32, 1, local_files_only=True)


def generate() -> Generate:
    """Ten steps: three phases of three steps and more."""
    changes = {"picture_px": IMAGE_PX, "steps": 10, "cross_injection": 0.7, "self_injection": 0.4}
    return load_profile("default").generate.model_copy(update=changes)


def latents_of(painter: Painter) -> Tensor:
    """What the painter decodes, on the CPU."""
    found: list[Tensor] = []
    decode = painter.sdxl.decode

    def noting(latents: Tensor) -> Tensor | None:
        found.append(latents.cpu())
        return decode(latents)

    painter.sdxl.decode = noting  # type: ignore[method-assign]
    painter.paint_pairs(PAIRS, generate())
    painter.sdxl.decode = decode  # type: ignore[method-assign]
    return torch.stack(found)


def test_graphed_steps_give_the_same_latents_bit_for_bit(checkpoint: Path) -> None:
    plain, graphed, told = painter(checkpoint), painter(checkpoint), list[str]()
    graphed.graph_steps(told.append)
    assert torch.equal(latents_of(graphed), latents_of(plain))
    assert told == []


def test_a_graphs_memory_is_given_back_after_its_pass(checkpoint: Path) -> None:
    graphed = painter(checkpoint)
    graphed.graph_steps(pytest.fail)
    latents_of(graphed)
    before = torch.cuda.memory_allocated()
    latents_of(graphed)
    assert torch.cuda.memory_allocated() <= before


def test_compiled_and_graphed_steps_agree_with_plain_ones(checkpoint: Path) -> None:
    plain, compiled, told = painter(checkpoint), painter(checkpoint), list[str]()
    compile_models({Role.PAINTER: compiled}, told.append)
    compiled.graph_steps(told.append)
    assert torch.allclose(latents_of(compiled), latents_of(plain), atol=1e-3)
    assert told == []


@pytest.mark.parametrize("graphed_only", [True, False])
def test_answers_are_those_of_the_plain_models_token_for_token(tmp_path: Path, graphed_only: bool) -> None:
    tiny_sdxl(tmp_path / "painter")
    path = tiny_models.save_all(tmp_path)
    text = path.read_text("utf-8")
    for role in ("rewriter", "captioner"):
        text = text.replace(f"[{role}]", f'[{role}]\nprecision = "fp32"')
    path.write_text(text, "utf-8")
    told: list[str] = []
    rewrite = load_profile("default").rewrite.model_copy(update={"prompt": "{caption}", "max_new_tokens": 12})
    rewrite = rewrite.model_copy(update={"temperature": 0.0})
    image = torch.arange(3 * 32 * 32, device="cuda").remainder(251).to(torch.uint8).view(3, 32, 32)
    answers = []
    for on in (False, True):
        roles = [Role.REWRITER, Role.CAPTIONER]
        models = load_models(
            load_bundle(path), roles, torch.device("cuda"), lambda _: None, on and not graphed_only, told.append
        )
        if on:
            models.need_rewriter.graph_steps(told.append)
            models.need_captioner.graph_steps(told.append)
        rewritten = models.need_rewriter.rewrite(
            ["a dog", "a cat on the grass", "a red ball " * 15], [1, 2, 3], rewrite
        )
        said = models.need_captioner.answer([image, 255 - image], [["what is this ?"] * 3, ["a dog ?"]], 12)
        answers.append((rewritten, said))
    assert answers[0] == answers[1]
    assert told == []
