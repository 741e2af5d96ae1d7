"""A bundle of tiny models of which one line is swapped for another, and what its stages answer.

`base` is the folder of the fixture of that name.
"""

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.fleet.wire import Start
from imgdiffd.method.messages import StageInput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.models.loading import Models, load_models
from imgdiffd.pipeline import Role, Stage
from imgdiffd.stages.images import Images
from imgdiffd.worker.engine import StageEngine


def swapped(base: Path, role: str, old: str, new: str) -> Path:
    """A bundle file in `base` with the line `old` of `role` swapped for `new`."""
    head, table, rest = (base / "bundle.toml").read_text("utf-8").partition(f"[{role}]\n")
    assert old in rest
    path = base / f"swapped-{role}.toml"
    path.write_text(head + table + rest.replace(old, new, 1), "utf-8")
    return path


def with_source(base: Path, role: str, folder: str) -> Path:
    """A bundle file in `base` whose `role` is played by what is in `folder`."""
    return swapped(base, role, f'source = "{role}"', f'source = "{folder}"')


def loaded(bundle: Path, *roles: Role) -> Models:
    """These roles of a bundle file, on the CPU."""
    return load_models(load_bundle(bundle), roles, torch.device("cpu"), lambda _: None, compile=False)


def save_images(folder: Path) -> Images:
    """1.png and 2.png, 64×48, of large and small squares of random colours."""
    noise, written = torch.Generator().manual_seed(0), Images(folder, torch.device("cpu"))
    for name in ("1.png", "2.png"):
        coarse = torch.rand(2, 3, 6, 8, generator=noise)
        large, small = functional.interpolate(coarse, (48, 64)), coarse.repeat(1, 1, 8, 8)
        written.write({name: ((0.7 * large[0] + 0.3 * small[1]) * 255).to(torch.uint8)})
    return written


def ran(
    bundle: Path, stage: Stage, roles: tuple[Role, ...], profile: Profile, folder: Path, *inputs: StageInput
) -> Any:
    """What a worker of `bundle` answers to one batch whose images are in `folder`."""
    engine = StageEngine(Start(str(bundle), "cpu", roles, str(folder)), lambda _: None)
    assert set(engine.models) == set(roles)
    answers = engine.run(stage, profile, inputs)
    engine.take_writes()()
    assert engine.report().notes == ()  # nothing is done otherwise than it should be
    return answers


def changed(part: str, **changes: Any) -> Profile:
    """The miniature bundle's profile with other numbers in its table `part`."""
    profile = load_profile("mini")
    return profile.model_copy(update={part: getattr(profile, part).model_copy(update=changes)})
