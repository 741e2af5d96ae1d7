"""Roles that share another role's model, as a bundle file says it."""

from pathlib import Path

import pytest

from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.errors import BundleError
from imgdiffd.pipeline import Role
from tests.unit.bundles.test_bundle import TABLES, written

READER = """[captioner]
source = "vendor/reader"
revision = "abc"
precision = "bf16"
licence = "MIT"
weights_gb = 4.0
allow_pickle = true
chat_template = "hello"
"""
WITHOUT = TABLES.replace('[rewriter]\nsource = "rewriter"\n', "").replace('[captioner]\nsource = "captioner"\n', READER)


def shared(folder: Path, *lines: str, tables: str = "") -> Bundle:
    """The bundle of `WITHOUT`, whose captioner reads, with these lines above its tables and more tables below."""
    return load_bundle(written(folder, "\n".join([*lines, WITHOUT, tables])))


def test_a_role_that_names_another_has_its_whole_model(tmp_path: Path) -> None:
    bundle = shared(tmp_path, 'rewriter = "captioner"', 'judge = "rewriter"')
    same = ("source", "revision", "variant", "precision", "licence", "weights_gb", "allow_pickle", "chat_template")
    for role in (Role.REWRITER, Role.JUDGE):
        model, captioner = bundle.model(role), bundle.captioner
        assert {key: getattr(model, key) for key in same} == {key: getattr(captioner, key) for key in same}
        assert model.weights == captioner.weights
        assert model.peak_gb is None
    assert bundle.rewriter.rows_per_pass == 16
    assert {role: bundle.shared_with(role) for role in bundle.roles if bundle.shared_with(role)} == {
        Role.CAPTIONER: Role.REWRITER,
        Role.JUDGE: Role.REWRITER,
    }


def test_a_table_with_same_as_keeps_its_own_sizes(tmp_path: Path) -> None:
    table = '[rewriter]\nsame_as = "captioner"\nrows_per_pass = 8\npeak_gb = 1.5\nchat_template = "its own"\n'
    rewriter = shared(tmp_path, tables=table).rewriter
    assert (rewriter.source, rewriter.rows_per_pass, rewriter.peak_gb) == ("vendor/reader", 8, 1.5)
    assert rewriter.chat_template == "its own"


def test_a_role_has_the_chat_template_of_the_role_it_names(tmp_path: Path) -> None:
    tables = '[judge]\nsource = "vendor/reader"\nchat_template = "judge"\n'
    tables += '[captioner]\nsame_as = "judge"\nchat_template = "captioner"\n[rewriter]\nsame_as = "captioner"\n'
    bundle = load_bundle(written(tmp_path, WITHOUT.replace(READER, "") + tables))
    assert bundle.rewriter.chat_template == "captioner"
    assert bundle.rewriter.weights == bundle.captioner.weights


def test_numbers_are_numbers_not_switches(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="rows_per_pass: must be a whole number, not true"):
        shared(tmp_path, tables='[rewriter]\nsame_as = "captioner"\nrows_per_pass = true')


def test_an_eraser_shares_the_painter_and_its_autoencoder(tmp_path: Path) -> None:
    tables = TABLES.replace("[painter]\n", '[painter]\nvae = "some/vae"\n')
    bundle = load_bundle(written(tmp_path, f'eraser = "painter"\n{tables}'))
    assert bundle.eraser is not None
    assert (bundle.eraser.vae, bundle.eraser.weights) == ("some/vae", bundle.painter.weights)


@pytest.mark.parametrize(
    ("line", "tables", "said"),
    [
        ('rewriter = "rewriter"', "", "rewriter: it names itself"),
        ('rewriter = "captoiner"', "", "rewriter: there is no role 'captoiner'"),
        ('rewriter = "vendor/chat"', "", "rewriter: there is no role 'vendor/chat' whose model it could share"),
        ('rewriter = "judge"', "", "rewriter: it shares the judge's model, but there is no judge"),
        ('rewriter = "judge"\njudge = "rewriter"', "", "rewriter: rewriter → judge → rewriter: none of these roles"),
        ('rewriter = "painter"', "", "rewriter: a painter cannot play the rewriter"),
        ('rewriter = "captioner"\neraser = "blip"', "", "eraser: a blip cannot play the eraser"),
        ("", '[rewriter]\nsame_as = "captioner"\nsource = "a/b"', "rewriter.source: it shares the captioner's model"),
        ("", '[rewriter]\nsame_as = "captioner"\nrevision = "x"', "rewriter.revision: it shares the captioner's model"),
        ("", '[rewriter]\nsame_as = "captioner"\nprecision = "fp32"', "rewriter.precision: it shares"),
        ("", '[rewriter]\nsame_as = "captioner"\nrows_per_pass = 0', "rewriter.rows_per_pass: "),
        ("", "[rewriter]\nsame_as = 5", "rewriter: there is no role 5"),
        ("rewriter = 5", "", "rewriter: "),
    ],
)
def test_what_cannot_be_shared_is_refused_with_its_role(tmp_path: Path, line: str, tables: str, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        shared(tmp_path, line, tables=tables)
    assert said in caught.value.message
    assert str(tmp_path / "bundle.toml") in caught.value.message
    assert caught.value.hint


def test_a_shared_models_fault_is_named_where_it_is_written(tmp_path: Path) -> None:
    text = WITHOUT.replace("weights_gb = 4.0", "weights_gb = -4.0")
    with pytest.raises(BundleError, match=r"captioner\.weights_gb: "):
        load_bundle(written(tmp_path, f'rewriter = "captioner"\n{text}'))
