"""A worker's models keep their weights whatever becomes of the files that they came from."""

import shutil
from pathlib import Path

import torch
from torch import nn

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.models.loading import load_models
from imgdiffd.pipeline import Role


def modules_in(found: object, seen: set[int]) -> list[nn.Module]:
    """Every torch module that an object of ours holds."""
    if isinstance(found, nn.Module):
        return [found]
    if id(found) in seen or not (hasattr(found, "__dict__") or isinstance(found, tuple | list)):
        return []
    seen.add(id(found))
    inside = found if isinstance(found, tuple | list) else vars(found).values()
    return [module for each in inside for module in modules_in(each, seen)]


def test_files_overwritten_in_place_do_not_change_loaded_models(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = load_bundle(str(shutil.copytree(tiny_bundle.parent, tmp_path / "bundle")))
    models = load_models(bundle, set(Role) & set(bundle.roles), torch.device("cpu"), lambda _: None, compile=False)
    modules = modules_in(models, set())
    assert sum(1 for module in modules for _ in module.parameters()) > 100
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    for file in bundle.path.parent.rglob("*.safetensors"):
        with file.open("r+b") as weights:  # as `cp` writes over a file
            weights.seek(-(file.stat().st_size // 2), 2)
            weights.write(b"\x11" * (file.stat().st_size // 2))
    for module, kept in zip(modules, before, strict=True):
        for name, value in module.state_dict().items():
            assert torch.equal(value, kept[name]), f"{type(module).__name__}.{name}"
