"""Warm-up: what a profile's stages ask for is compiled before the first batch, told as it goes, and may fail."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.fleet.wire import Start
from imgdiffd.kernels.compile import TUNED, compile_blocks
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.models import loading
from imgdiffd.models.loading import Models, load_models
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.pipeline import OPTIONAL_ROLES, Role
from imgdiffd.stages.drawing import joined
from imgdiffd.worker.engine import StageEngine
from imgdiffd.worker.warm_up import warm_up
from tests.tiny.sdxl import IMAGE_PX

CPU = torch.device("cpu")
ROLES = [role for role in Role if role not in OPTIONAL_ROLES]
COMPILED = [role for role in ROLES if role != Role.SEGMENTER]
PROFILE = f"""extends = "default"
[rewrite]
prompt = "replace {{caption}}"
[generate]
picture_px = {IMAGE_PX}
steps = 3
[describe]
prompt = "what is this in {{box}}"
[contrast]
prompt = "left {{left}} right {{right}} what is the difference"
bar_px = 2
"""


@pytest.fixture(scope="module")
def tiny_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that all share, with a profile of its own."""
    folder = shutil.copytree(tiny_bundle.parent, tmp_path_factory.mktemp("profiled"), dirs_exist_ok=True)
    (folder / "tiny.toml").write_text(PROFILE, "utf-8")
    path = folder / tiny_bundle.name
    path.write_text(f'profile = "{folder / "tiny.toml"}"\n' + path.read_text("utf-8"), "utf-8")
    return path


@pytest.fixture(autouse=True)
def quick_dynamo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs are found as ever, but run as they are: building them would take minutes."""
    monkeypatch.setattr(loading, "compile_blocks", partial(compile_blocks, backend="eager"))
    config: Any = torch._dynamo.config
    torch._dynamo.reset()
    counters.clear()
    with config.patch(recompile_limit=2, fail_on_recompile_limit_hit=False):
        yield
    torch._dynamo.reset()


def refuse(note: str) -> None:
    raise AssertionError(note)


def compiled(path: Path) -> tuple[Models, Profile]:
    bundle = load_bundle(path)
    return load_models(bundle, ROLES, CPU, lambda _: None, compile=True, note=refuse), load_profile(bundle.profile)


def work(models: Models, profile: Profile) -> None:
    """What a pair's stages ask of the models, in the order of the stages."""
    models.need_rewriter.rewrite(["a red ball", "a cat on the sea " * 20], [1, 2], profile.rewrite)
    images = models.need_painter.paint_pairs([PairPrompt("a red ball", "a blue ball", 1)], profile.generate)[0]
    boxes = [(0, 0, 9 + place, 20) for place in range(7)]
    texts = ["a dog", "cat", "a red ball on the grass", "sea", "on", "a", "ball ball ball"]
    models.need_clip.embed_images(images)
    for number in (1, 4, 7):
        models.need_clip.embed_crops(images[0], boxes[:number])
        models.need_blip.score(images[1], boxes[:number], texts[:number], profile.locate.noun_kind)
        models.need_blip.score(images[1], boxes[:number], texts[:number], profile.describe.match_kind)
        models.need_captioner.answer(images, [["what is this"] * number] * 2, 5)
    models.need_clip.embed_texts(texts)
    both = joined(*images, profile.contrast.bar_px)
    models.need_captioner.answer([both, both], [["what is this"], ["a dog " * 12]], 5)


@pytest.mark.long
def test_after_the_warm_up_no_stage_waits_for_a_kernel(tiny_bundle: Path) -> None:
    models, profile = compiled(tiny_bundle)
    with torch.inference_mode():
        warm_up(models, profile, CPU, lambda _: None, refuse)
        warmed = counters["stats"]["unique_graphs"]
        work(models, profile)
    assert warmed > 20
    assert counters["stats"]["unique_graphs"] == warmed


@pytest.mark.long
def test_the_warm_up_says_which_role_it_is_at_and_every_kernel(tiny_bundle: Path) -> None:
    models, profile = compiled(tiny_bundle)
    said: list[str] = []
    with torch.inference_mode():
        warm_up(models, profile, CPU, said.append, refuse)
    roles = [f"warming up {role} ({number} of {len(COMPILED)})" for number, role in enumerate(COMPILED, 1)]
    assert [line for line in said if "kernel" not in line] == roles
    for role in roles:
        kernels = [line for line in said if line.startswith(f"{role}, kernel ")]
        assert kernels == [f"{role}, kernel {number}" for number in range(1, len(kernels) + 1)]
        assert kernels


@pytest.mark.long
def test_a_role_that_cannot_warm_up_is_noted_and_others_go_on(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room\nfor this")

    models, profile = compiled(tiny_bundle)
    monkeypatch.setattr(Painter, "paint_pairs", full)
    said, noted = list[str](), list[str]()
    with torch.inference_mode():
        warm_up(models, profile, CPU, said.append, noted.append)
    assert noted == ["the painter was not warmed up: OutOfMemoryError: no room"]
    assert f"warming up captioner ({len(COMPILED)} of {len(COMPILED)})" in said


@pytest.mark.parametrize("on", [False, True])
def test_an_engine_warms_up_where_compiling_is_on(tiny_bundle: Path, tmp_path: Path, on: bool) -> None:
    said: list[str] = []
    engine = StageEngine(Start(str(tiny_bundle), "cpu", ("clip", "blip"), str(tmp_path), compile=on), said.append)
    warm = ["warming up clip (1 of 2)", "warming up blip (2 of 2)"]
    assert [line for line in said if line in warm] == (warm if on else [])
    assert engine.report().notes == ()


def test_an_engine_reports_what_could_not_be_compiled_once(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(loading, "compile_blocks", partial(compile_blocks, backend=refused))
    engine = StageEngine(Start(str(tiny_bundle), "cpu", ("clip",), str(tmp_path), compile=True), lambda _: None)
    assert engine.report().notes == ("the clip runs uncompiled: RuntimeError: no compiler",)
    assert engine.report().notes == ()


def test_only_products_of_fixed_shapes_are_tuned(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(loading, "compile_blocks", lambda what, *_, **named: given.update({what: named["options"]}))
    for tune in (True, False):
        StageEngine(
            Start(str(tiny_bundle), "cpu", ("painter", "clip"), str(tmp_path), compile=True, tune=tune), lambda _: None
        )
        assert given == {"the painter": TUNED if tune else None, "the clip": None}
