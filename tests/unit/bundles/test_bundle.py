"""Bundle files: what they say, and that every fault is named with its file and key."""

from pathlib import Path

import jinja2
import pytest

from imgdiffd.bundles.bundle import BUILT_IN, SHIPPED, LinearMap, load_bundle
from imgdiffd.errors import BundleError

TABLES = """
[rewriter]
source = "rewriter"
[painter]
source = "painter"
pairs_per_pass = 2
[segmenter]
source = "segmenter"
file = "any.pt"
[clip]
source = "openai/clip-vit-base-patch32"
revision = "abc"
[blip]
source = "/somewhere/blip"
[captioner]
source = "captioner"
"""


def written(folder: Path, text: str = TABLES) -> Path:
    path = folder / "bundle.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_bundle_loads_and_names_each_role(name: str) -> None:
    bundle = load_bundle(name)
    assert bundle.name == name
    assert all(bundle.model(role).source and bundle.model(role).licence for role in bundle.roles)


def test_a_bundle_folder_and_its_file_are_the_same_bundle(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert load_bundle(tmp_path) == load_bundle(path) == load_bundle(str(path))
    assert load_bundle(path).name == tmp_path.name


def test_local_sources_lie_beside_the_bundle_file(tmp_path: Path) -> None:
    bundle = load_bundle(written(tmp_path))
    assert bundle.folder(bundle.rewriter.source) == tmp_path / "rewriter"
    assert bundle.folder(bundle.blip.source) == Path("/somewhere/blip")
    assert bundle.folder(bundle.clip.source) is None
    assert bundle.clip.label == "openai/clip-vit-base-patch32@abc"
    assert bundle.rewriter.label == "rewriter"


def test_a_preview_is_a_map_or_a_source(tmp_path: Path) -> None:
    given = LinearMap(factors=((0.25, -0.5, 1.0), (0.0, 0.125, 0.0)), bias=(0.5, 0.0, -0.25))
    assert load_bundle(written(tmp_path, TABLES + given.as_toml())).painter.preview == given
    tiny = load_bundle(written(tmp_path, TABLES.replace("pairs_per_pass = 2", 'preview = "own/tiny"'))).painter
    assert (tiny.preview, tiny.additions) == ("own/tiny", ("own/tiny",))
    assert load_bundle(written(tmp_path)).painter.preview is None


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_bundle_has_a_preview_of_its_latents(name: str) -> None:
    preview = load_bundle(name).painter.preview
    assert isinstance(preview, LinearMap)
    assert len(preview.factors) == (8 if name == "mini" else 4)


def test_an_existing_folder_wins_over_a_hub_id(tmp_path: Path) -> None:
    (tmp_path / "openai" / "clip-vit-base-patch32").mkdir(parents=True)
    bundle = load_bundle(written(tmp_path))
    assert bundle.folder(bundle.clip.source) == tmp_path / "openai" / "clip-vit-base-patch32"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (TABLES.replace('[clip]\nsource = "openai/clip-vit-base-patch32"\nrevision = "abc"', ""), "clip"),
        (TABLES.replace("pairs_per_pass = 2", "pairs_per_pass = 0"), "painter.pairs_per_pass"),
        (TABLES.replace("revision", "revison"), "clip.revison"),
        (TABLES.replace('"any.pt"', '"../any.pt"'), "segmenter.file"),
        (TABLES.replace('"any.pt"', '"any.pkl"'), "segmenter.file"),
        ('path = "elsewhere"\n' + TABLES, "path"),
        (TABLES + "[painter.preview]\nfactors = []\nbias = [0, 0, 0]\n", "painter.preview"),
        (TABLES + "[painter.preview]\nfactors = [[1, 2]]\nbias = [0, 0, 0]\n", "painter.preview"),
        (TABLES.replace("pairs_per_pass = 2", 'preview = ""'), "painter.preview"),
        ("[clip", "TOML"),
    ],
)
def test_a_wrong_bundle_file_is_named_with_its_key(tmp_path: Path, text: str, key: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    assert key in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["paper", "small"])
def test_vicunas_template_is_its_conversation(name: str) -> None:
    """FastChat's and LLaVA's vicuna_v1: the system text, a space, USER and ASSISTANT; a given one takes its place."""
    template = load_bundle(name).rewriter.chat_template
    assert template is not None
    rendered = jinja2.Environment().from_string(template)
    question = {"role": "user", "content": "Hello!"}
    vicuna = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions."
    )
    given = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
    assert rendered.render(messages=[question], **given) == f"<s>{vicuna} USER: Hello! ASSISTANT:"
    own = rendered.render(messages=[{"role": "system", "content": "Be brief."}, question], **given)
    assert own == "<s>Be brief. USER: Hello! ASSISTANT:"


def test_an_unknown_bundle_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="mini, paper, small, compact"):
        load_bundle(tmp_path / "none")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_bundle_says_what_memory_each_role_takes(name: str) -> None:
    bundle = load_bundle(name)
    for role in bundle.roles:
        model = bundle.model(role)
        assert model.weights_gb, role
        assert model.peak_gb, role


def test_painting_names_the_models_that_pairs_depend_on() -> None:
    mini = load_bundle("mini")
    same = mini.model_copy(update={"captioner": mini.captioner.model_copy(update={"source": "other"})})
    faster = mini.model_copy(update={"painter": mini.painter.model_copy(update={"pairs_per_pass": 9})})
    other = mini.model_copy(update={"clip": mini.clip.model_copy(update={"revision": "main"})})
    assert mini.painting.startswith("mini ")
    assert same.painting == faster.painting == mini.painting != other.painting
