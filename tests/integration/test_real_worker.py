"""The real worker process on tiny models with random weights, two of which play several roles: every stage."""

from pathlib import Path

import anyio
import pytest
from PIL import Image

from imgdiffd.fleet.device import DeviceProcess
from imgdiffd.fleet.wire import Start
from imgdiffd.method.messages import (
    CompareInput,
    ContrastInput,
    ContrastRegion,
    DescribeInput,
    GenerateInput,
    LocateInput,
    RegionInput,
    RenderInput,
    RenderRegion,
    RewriteInput,
    ScreenInput,
    StageInput,
    StageOutput,
    VetInput,
)
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.removal_messages import EraseInput, EraseOutput, InspectInput, InspectOutput
from imgdiffd.pipeline import Role, Stage
from tests.tiny.judge import save_judge
from tests.tiny.models import save_all
from tests.tiny.sdxl import IMAGE_PX, tiny_sdxl

LIMIT_S = 560
SHARED = '\n[judge]\nsame_as = "rewriter"\nrows_per_pass = 3\n[eraser]\nsame_as = "painter"\npictures_per_pass = 3\n'
EVERYTHING = {"original_above": {"value": -2.0}, "erased_below": {"value": 2.0}}
CAPTIONS = ("a red ball on the grass", "a blue cube and a dog")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    tiny_sdxl(folder / "painter")
    path = save_all(folder)
    save_judge(folder / "reader")  # which rewrites, describes and judges
    text = path.read_text("utf-8").replace('source = "rewriter"', 'same_as = "captioner"')
    path.write_text(text.replace('source = "captioner"', 'source = "reader"') + SHARED, "utf-8")
    return path


def profile() -> Profile:
    """Small enough for a CPU, and loose enough that BLIP is asked for everything."""
    mini = load_profile("mini")
    loose = {"value": 2.0}
    changes = {
        "generate": mini.generate.model_dump() | {"picture_px": IMAGE_PX, "steps": 2},
        "rewrite": mini.rewrite.model_dump() | {"max_new_tokens": 8},
        "locate": mini.locate.model_dump() | {"crop_cosine_below": loose, "min_area": 0.0},
        "describe": mini.describe.model_dump() | {"text_cosine_below": loose, "max_new_tokens": 6},
        "contrast": mini.contrast.model_dump() | {"max_new_tokens": 6},
        "removal": mini.removal.model_dump()
        | {"crop_cosine_below": loose, "targets": 1, "picture_px": IMAGE_PX}
        | EVERYTHING,
    }
    return Profile.model_validate(mini.model_dump() | changes)


async def every_stage(device: DeviceProcess, captions: tuple[str, ...]) -> list[StageOutput]:
    chosen = profile()
    outputs: list[StageOutput] = []

    async def run(stage: Stage, *inputs: StageInput) -> None:
        outputs.extend((await device.run(stage, chosen, inputs, LIMIT_S)).outputs)

    items = [CAPTIONS.index(caption) for caption in captions]
    pairs = {item: (f"000000/{item}-0-1.png", f"000000/{item}-0-2.png") for item in items}
    box = (4, 6, 20, 25)
    await run(Stage.REWRITE, *(RewriteInput(item, CAPTIONS[item], 0) for item in items))
    await run(Stage.GENERATE, *(GenerateInput(item, CAPTIONS[item], "a blue cube", 0) for item in items))
    await run(Stage.COMPARE, *(CompareInput(item, *pairs[item]) for item in items))
    await run(Stage.VET, *(VetInput(item, *pairs[item]) for item in items))
    await run(Stage.LOCATE, *(LocateInput(item, *pairs[item], ("ball",), ("cube", "cat")) for item in items))
    await run(Stage.DESCRIBE, *(DescribeInput(item, *pairs[item], (RegionInput(0, box),)) for item in items))
    region = ContrastRegion(0, box, "a red ball", "a cube", 2)
    await run(Stage.CONTRAST, *(ContrastInput(item, *pairs[item], (region,)) for item in items))
    await run(Stage.SCREEN, *(ScreenInput(item, *pairs[item], (RenderRegion(0, box, 2),)) for item in items))
    await run(Stage.RENDER, *(RenderInput(item, *pairs[item], (RenderRegion(0, box, 2),)) for item in items))
    await run(Stage.ERASE, *(EraseInput(item, *pairs[item], CAPTIONS[item], 0) for item in items))
    erased = [output for output in outputs if isinstance(output, EraseOutput)]
    await run(Stage.INSPECT, *(InspectInput(output.item, output.erasures) for output in erased))
    return outputs


@pytest.mark.anyio
async def test_results_do_not_depend_on_process_or_batch_mates(bundle: Path, tmp_path: Path) -> None:
    found = []
    for number, batches in enumerate(((CAPTIONS,), ((CAPTIONS[1],), (CAPTIONS[0],)))):
        roles = tuple(role.value for role in Role)
        (tmp_path / str(number)).mkdir()
        device = DeviceProcess("cpu", Start(str(bundle), "cpu", roles, str(tmp_path / str(number)), threads=1))
        with anyio.fail_after(LIMIT_S):
            ready = await device.start()
            assert set(ready.models) == set(roles)
            assert {ready.models[role] for role in ("rewriter", "captioner", "judge")} == {"reader"}
            outputs = [output for captions in batches for output in await every_stage(device, captions)]
            await device.stop(30)
        assert device.exit_reason.startswith("ended with status 0")
        found.append(sorted(outputs, key=lambda output: (output.kind, output.item)))
    assert found[0] == found[1]
    kinds = [output.kind for output in found[0]]
    assert {kind: kinds.count(kind) for kind in kinds} == {stage.value: len(CAPTIONS) for stage in Stage}
    files = sorted(path.relative_to(tmp_path / "0") for path in (tmp_path / "0").rglob("*.png"))
    objects = sum(len(output.erasures) for output in found[0] if isinstance(output, EraseOutput))
    inspected = [obj for output in found[0] if isinstance(output, InspectOutput) for obj in output.objects]
    assert len(inspected) == objects > 0
    assert len(files) == 4 * len(CAPTIONS) + objects + 2 * sum(bool(obj.with_image) for obj in inspected)
    for path in files:
        assert (tmp_path / "0" / path).read_bytes() == (tmp_path / "1" / path).read_bytes()
        with Image.open(tmp_path / "0" / path) as image:
            assert image.size == (IMAGE_PX, IMAGE_PX)
