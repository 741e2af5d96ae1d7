"""`rewriter = "lexicon"`: a bundle without a model for its rewriter loads, takes no memory, and rewrites."""

from pathlib import Path

import pytest
import torch

from imgdiffd import hub
from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.errors import BundleError
from imgdiffd.fleet.footprints import Measurements, footprints
from imgdiffd.method.messages import RewriteInput
from imgdiffd.method.profile import load_profile
from imgdiffd.method.rewriting import judge_answer
from imgdiffd.models.loading import load_models
from imgdiffd.pipeline import Role
from imgdiffd.stages.images import Images
from imgdiffd.stages.rewrite import rewrite

CAPTIONS = ("a black dog on a red sofa", "An apple beside two cups of coffee", "nothing at all")
PROFILE = load_profile("default")
CPU = torch.device("cpu")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The miniature bundle, but for its rewriter."""
    mini = load_bundle("mini")
    text = mini.path.read_text("utf-8").replace('[rewriter]\nsource = "rewriter"\n', "")
    text = text.replace('licence = "AGPL-3.0-or-later"\nrows_per_pass = 16\n', "", 1)
    for model in ("painter", "segmenter", "clip", "blip", "captioner"):
        text = text.replace(f'source = "{model}"', f'source = "{mini.path.parent / model}"')
    path = tmp_path / "own.toml"
    path.write_text(text.replace('profile = "mini"\n', 'profile = "mini"\nrewriter = "lexicon"\n'), "utf-8")
    return load_bundle(path)


def test_the_lexicon_takes_the_place_of_a_model(bundle: Bundle, tmp_path: Path) -> None:
    models = load_models(bundle, [Role.REWRITER], CPU, lambda _: None, compile=False)
    inputs = [RewriteInput(number, caption, attempt=1) for number, caption in enumerate(CAPTIONS)]
    images = Images(tmp_path, CPU)
    outputs = rewrite(models, PROFILE, inputs, images)
    reasons = [judge_answer(c, out, PROFILE.rewrite).reason for c, out in zip(CAPTIONS, outputs, strict=True)]
    assert reasons == [None, None, "unchanged"]
    assert outputs == rewrite(models, PROFILE, inputs, images)
    again = rewrite(models, PROFILE, [RewriteInput(0, CAPTIONS[0], attempt=2)], images)
    assert again[0].answer != outputs[0].answer
    assert models.sources["rewriter"].startswith("lexicon@")


def test_the_lexicon_is_always_here_and_takes_no_memory(bundle: Bundle, tmp_path: Path) -> None:
    assert [each.problems for each in hub.presences(bundle)] == [()] * len(bundle.roles)
    taken = footprints(bundle, [Role.REWRITER], Measurements(tmp_path / "none.json"), cpu=False)
    assert (taken[Role.REWRITER].weights_bytes, taken[Role.REWRITER].peak_bytes) == (0, 0)
    assert bundle.rewriter.licence == "WordNet 3.0"


def test_a_table_of_the_lexicon_has_nothing_of_a_model(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[rewriter]\nsource = "lexicon"\nrows_per_pass = 4\n', "utf-8")
    with pytest.raises(BundleError, match="rewriter: rows_per_pass is of models, and the lexicon is none"):
        load_bundle(path)
