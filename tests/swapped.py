"""A bundle of tiny models of which one line is swapped for another, and what is loaded from it.

It owns the base bundle's folders and the text of its file; it does not know which models take the place of others.
"""

from pathlib import Path

import torch

from imgdiffd.bundle import load_bundle
from imgdiffd.models.loading import Models, load_models
from imgdiffd.pipeline import Role
from tests import tiny_models
from tests.tiny import tiny_sdxl


def save_base(folder: Path) -> Path:
    """A bundle file and a folder for each role, in `folder`, which it returns: other models may join them there."""
    tiny_sdxl(folder / "painter")
    tiny_models.save_all(folder)
    return folder


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
