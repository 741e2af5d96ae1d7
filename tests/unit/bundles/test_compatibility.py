"""The laws of `imgdiffd.bundles.compatibility`: what a profile leaves out, and which bundles it cannot be run with."""

from pathlib import Path

import pytest

from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.bundles.compatibility import check_agreement, optional_roles
from imgdiffd.cli.main import main
from imgdiffd.errors import EXIT_CONFIGURATION, ConfigurationError
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_files import BUILT_IN
from imgdiffd.pipeline import OPTIONAL_STAGES, Role, Stage
from tests.fakes.answers import SCREENED, VETTED


@pytest.fixture
def judged(tmp_path: Path) -> Bundle:
    roles = ("rewriter", "painter", "segmenter", "clip", "blip", "captioner", "judge")
    tables = [f'[{role}]\nsource = "{role}"\n' + ('file = "a.pt"\n' if role == "segmenter" else "") for role in roles]
    path = tmp_path / "judged.toml"
    path.write_text("".join(tables), "utf-8")
    return load_bundle(path)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_profiles_need_no_optional_stage_or_role(name: str) -> None:
    profile = load_profile(name)
    assert profile.skipped_stages == OPTIONAL_STAGES == {Stage.VET, Stage.SCREEN}
    assert not optional_roles(profile)
    check_agreement(profile, load_bundle("mini"), held=())


def test_the_filter_needs_the_judge_and_only_that() -> None:
    assert VETTED.skipped_stages == {Stage.SCREEN}
    assert SCREENED.skipped_stages == {Stage.VET}
    assert optional_roles(VETTED) == optional_roles(SCREENED) == {Role.JUDGE}


def test_a_bundle_without_a_needed_judge_is_refused_with_advice() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_agreement(VETTED, load_bundle("mini"))
    assert caught.value.exit_status == EXIT_CONFIGURATION
    assert "profile default needs a judge, bundle mini has none" in str(caught.value)
    assert "add [judge] to" in str(caught.value)
    assert "natural.enabled = false" in str(caught.value)


def test_a_judge_that_no_device_holds_is_refused(judged: Bundle) -> None:
    check_agreement(VETTED, judged)
    check_agreement(VETTED, judged, held=["clip", "judge"])
    with pytest.raises(ConfigurationError, match="no device has room"):
        check_agreement(VETTED, judged, held=["clip"])


def test_check_refuses_a_profile_whose_judge_the_bundle_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vetted.toml").write_text('extends = "default"\nnatural = { enabled = true }\n')
    settings = tmp_path / "settings.toml"
    settings.write_text('bundle = "mini"\nprofile = "vetted.toml"\n')
    with pytest.raises(SystemExit) as caught:
        main(["--config", str(settings), "check"])
    assert caught.value.code == EXIT_CONFIGURATION
    assert "profile vetted needs a judge, bundle mini has none" in capsys.readouterr().out
