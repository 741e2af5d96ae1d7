"""Fits the miniature painter's preview and writes it into the bundle's file."""

import torch

from imgdiffd import durable
from imgdiffd.bundles.bundle import LinearMap, load_bundle
from imgdiffd.method.profile import load_profile
from imgdiffd.mini.harness import held_out_captions
from imgdiffd.mini.training import BUNDLE
from imgdiffd.models.fit_preview import fit_preview
from imgdiffd.models.loading import load_models
from imgdiffd.pipeline import Role

FILE = BUNDLE / "bundle.toml"
IMAGES = 64
DRAW = 9_000  # far from the seeds of calibrate and evaluate
HEADING = "[painter.preview]"


def with_preview(text: str, preview: LinearMap) -> str:
    """The text of a bundle file with `preview` at its end, in place of the one that it had."""
    kept, table = [], ""
    for line in text.splitlines():
        table = line if line.startswith("[") else table
        kept += [] if table == HEADING else [line]
    return "\n".join(kept).rstrip() + f"\n\n{preview.as_toml()}"


def main() -> None:
    """Fit the preview on images that the bundle's painter paints from captions of held-out scenes."""
    models = load_models(load_bundle("mini"), [Role.PAINTER], torch.device("cpu"), lambda _: None, compile=False)
    captions = held_out_captions(IMAGES, DRAW)
    preview, explained = fit_preview(models.need_painter, captions, load_profile("mini").generate)
    durable.write({FILE: with_preview(FILE.read_text("utf-8"), preview)})
    print(f"preview: explains {explained:.1%} of the variance of {IMAGES} images' colours")


if __name__ == "__main__":
    main()
