"""The laws of `imgdiffd.settings`: every key documented, unknown ones refused, errors that name the place."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from imgdiffd import settings as settings_module
from imgdiffd.errors import EXIT_CONFIGURATION, SettingsError
from imgdiffd.settings import Settings, documented, find_file, load_settings, variable_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "imgdiffd.toml"


def refused(file: Path | None, environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ)
    assert caught.value.exit_status == EXIT_CONFIGURATION
    assert caught.value.hint
    return caught.value.message


def test_without_file_and_environment_every_key_has_its_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings_module, "SYSTEM_FILE", tmp_path / "absent.toml")
    settings = load_settings(None, {"PATH": "/bin"})
    assert settings == Settings()
    assert settings.inbox_folder == Path("/var/lib/imgdiffd/inbox")
    assert settings.socket_path == Path("/var/lib/imgdiffd/imgdiffd.sock")


def test_environment_wins_over_the_file(file: Path) -> None:
    file.write_text('bundle = "one"\npoll_s = 5\n')
    settings = load_settings(file, {"IMGDIFFD_BUNDLE": "two"})
    assert (settings.bundle, settings.poll_s) == ("two", 5.0)


def test_a_given_file_wins_over_the_variable_and_the_system(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system.toml"
    monkeypatch.setattr(settings_module, "SYSTEM_FILE", system)
    assert find_file(None, {}) is None
    system.touch()
    assert find_file(None, {}) == system
    assert find_file(None, {"IMGDIFFD_CONFIG": "/some/file.toml"}) == Path("/some/file.toml")
    assert find_file(file, {"IMGDIFFD_CONFIG": "/some/file.toml"}) == file


def test_the_nearest_file_is_found_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("here/imgdiffd.toml", "xdg/imgdiffd/imgdiffd.toml", "home/.config/imgdiffd/imgdiffd.toml", "etc.toml")
    here, xdg, home, system = (tmp_path / name for name in names)
    for path in (here, xdg, home, system):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(settings_module, "SYSTEM_FILE", system)
    monkeypatch.chdir(here.parent)
    environ = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert find_file(None, environ) == here
    here.unlink()
    assert find_file(None, environ) == xdg
    assert find_file(None, {**environ, "XDG_CONFIG_HOME": ""}) == home
    home.unlink()
    assert find_file(None, {"HOME": str(tmp_path / "home")}) == system
    assert find_file(None, {}) == system


@pytest.mark.parametrize(("mode", "owner", "words"), [(0o666, 0, "written by everyone"), (0o600, 1, "another user")])
def test_a_file_that_a_stranger_may_have_put_there_is_not_read_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, words: str
) -> None:
    file = tmp_path / "imgdiffd.toml"
    file.write_text("poll_s = 7\n")
    file.chmod(mode)
    monkeypatch.chdir(tmp_path)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + owner)
    if me == 0 and owner:
        os.chown(file, 4321, -1)
    message = refused(None, {})
    assert message.startswith(f"{file} ")
    assert words in message
    assert load_settings(file, {}).poll_s == 7
    assert load_settings(None, {"IMGDIFFD_CONFIG": str(file)}).poll_s == 7


def test_a_working_folder_that_may_not_be_entered_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_path: object, **_more: object) -> os.stat_result:
        raise PermissionError

    monkeypatch.setattr(os, "stat", forbidden)
    assert find_file(None, {"HOME": "/root"}) is None


def test_inbox_and_socket_follow_the_state_folder(file: Path) -> None:
    file.write_text('state_folder = "/srv/state"\n')
    settings = load_settings(file, {})
    assert settings.inbox_folder == Path("/srv/state/inbox")
    assert settings.socket_path == Path("/srv/state/imgdiffd.sock")


def test_paths_are_relative_to_their_file_or_working_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('state_folder = "state"\nbundle = "models/big"\nprofile = "paper"\n')
    working = tmp_path / "elsewhere"
    working.mkdir()
    monkeypatch.chdir(working)
    settings = load_settings(file, {"IMGDIFFD_INBOX_FOLDER": "in"})
    assert settings.state_folder == tmp_path / "state"
    assert settings.bundle == str(tmp_path / "models/big")
    assert settings.profile == "paper"
    assert settings.inbox_folder == working / "in"


def test_home_is_expanded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    file.write_text('state_folder = "~/state"\n')
    assert load_settings(file, {}).state_folder == Path("/home/ada/state")


def test_unknown_key_is_refused_with_file_and_line(file: Path) -> None:
    file.write_text("poll_s = 1\n\npol_s = 2\n")
    assert refused(file, {}) == f"{file}, line 3: pol_s: no such setting"


def test_unknown_table_is_refused_with_file_and_line(file: Path) -> None:
    file.write_text("poll_s = 1\n[inbox]\nfolder = 'x'\n")
    assert refused(file, {}) == f"{file}, line 2: inbox: no such setting"


def test_wrong_value_is_refused_with_file_and_line(file: Path) -> None:
    file.write_text('bundle = "mini"\nin_flight = 0\n')
    assert refused(file, {}).startswith(f"{file}, line 2: in_flight: must be at least 1, not 0")


def test_broken_toml_names_its_line(file: Path) -> None:
    file.write_text("poll_s = 1\nsettle_s =\n")
    assert "line 2" in refused(file, {})


def test_unreadable_file_is_refused(file: Path) -> None:
    assert refused(file, {}).startswith(f"{file}: cannot be read: ")
    assert refused(None, {"IMGDIFFD_CONFIG": str(file)}).startswith(f"{file}: cannot be read: ")


def test_a_pipe_that_nobody_writes_is_refused_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    assert "a named pipe" in refused(file, {})


def test_a_file_without_end_is_refused(file: Path) -> None:
    assert "larger than" in refused(Path("/dev/zero"), {})


def test_settings_from_a_process_are_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"poll_s = 7\n")
    os.close(writer)
    assert load_settings(Path(f"/dev/fd/{reader}"), {}).poll_s == 7  # as bash names what `<(...)` writes
    os.close(reader)


def test_file_that_is_not_utf8_is_refused(file: Path) -> None:
    file.write_bytes(b'bundle = "\xff"\n')
    assert refused(file, {}) == f"{file}: not UTF-8 at byte 10"


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("IMGDIFFD_POLL_S", "soon", "$IMGDIFFD_POLL_S=soon: "),
        ("IMGDIFFD_POLL_S", "nan", "$IMGDIFFD_POLL_S=nan: "),
        ("IMGDIFFD_IN_FLIGHT", "9", "$IMGDIFFD_IN_FLIGHT=9: "),
        ("IMGDIFFD_COMPILE", "maybe", "$IMGDIFFD_COMPILE=maybe: "),
        ("IMGDIFFD_LOG_LEVEL", "loud", "$IMGDIFFD_LOG_LEVEL=loud: "),
        ("IMGDIFFD_STATE_FOLDER", "", "$IMGDIFFD_STATE_FOLDER=: "),
        ("IMGDIFFD_DEVICES", "", "$IMGDIFFD_DEVICES=: "),
        ("IMGDIFFD_DEVICES", "gpu", "'gpu' is not"),
        ("IMGDIFFD_DEVICES", "cpu,auto", "'auto' is not"),
        ("IMGDIFFD_DEVICES", "cuda:0, cuda:0", "cuda:0 named twice"),
        ("IMGDIFFD_POL_S", "1", "$IMGDIFFD_POL_S: no such setting"),
        ("IMGDIFFD_SOCKET_PATH", "/" + "x" * 107, "longer than the 107 bytes"),
        ("IMGDIFFD_OPEN_TASKS", "1_0", "must be a whole number, not '1_0'"),
        ("IMGDIFFD_OPEN_TASKS", " 10", "must be a whole number, not ' 10'"),
        ("IMGDIFFD_OPEN_TASKS", "10.0", "must be a whole number, not '10.0'"),
        ("IMGDIFFD_POLL_S", "1_0", "must be a number, not '1_0'"),
        ("IMGDIFFD_POLL_S", "\u0661", "must be a number, not '\u0661'"),
        ("IMGDIFFD_DEVICES", "cuda:\u0663", 'is not "cpu" or "cuda:N"'),
        ("IMGDIFFD_DEVICES", "cuda:00", 'is not "cpu" or "cuda:N"'),
        ("IMGDIFFD_COMPILE", "x", "must be true or false, or 'auto' or 'max-autotune', not 'x'"),
        ("IMGDIFFD_STATE_FOLDER", "~no-such-user/state", "there is no user 'no-such-user'"),
    ],
)
def test_wrong_environment_value_is_refused_by_name(variable: str, value: str, part: str, file: Path) -> None:
    file.touch()
    assert part in refused(file, {variable: value})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('compile = "x"', "must be true or false, or 'auto' or 'max-autotune', not 'x'"),
        ("open_tasks = true", "must be a whole number, not true"),
        ('open_tasks = "10"', "must be a whole number, not '10'"),
        ("poll_s = true", "must be a number, not true"),
        ("removal = 1", "must be true or false, not 1"),
        ("state_folder = 3", "must be text, not 3"),
        ('state_folder = "~no-such-user/state"', "there is no user 'no-such-user'"),
        ('state_folder = "a\\u0000b"', "a path cannot have a NUL character"),
        ("devices = []", "is empty"),
        ("devices = [3]", "must be text, not 3"),
        ("poll_s = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_a_value_of_another_kind_is_refused_not_converted(line: str, said: str, file: Path) -> None:
    file.write_text(line)
    assert said in refused(file, {})


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("poll_s", "1e1", 10.0),
        ("poll_s", ".5", 0.5),
        ("open_tasks", "+7", 7),
        ("removal", "off", False),
        ("compile", "True", True),
        ("compile", "max-autotune", "max-autotune"),
    ],
)
def test_the_environment_gives_numbers_and_switches_as_text(key: str, value: str, meant: object, file: Path) -> None:
    file.touch()
    assert getattr(load_settings(file, {variable_of(key): value}), key) == meant


def test_devices_come_as_a_list_or_separated_by_commas(file: Path) -> None:
    file.write_text('devices = ["cpu", "cpu"]\n')
    assert load_settings(file, {}).devices == ("cpu", "cpu")
    assert load_settings(file, {"IMGDIFFD_DEVICES": "cuda:0, cuda:1"}).devices == ("cuda:0", "cuda:1")
    file.write_text('devices = "auto"\n')
    assert load_settings(file, {}).devices == ("auto",)


def test_inbox_that_holds_the_state_is_refused(file: Path) -> None:
    file.write_text('state_folder = "/srv/all/state"\ninbox_folder = "/srv/all"\n')
    assert refused(file, {}).startswith(f"{file}: inbox_folder /srv/all holds state_folder")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().poll_s = 3


def test_every_key_is_documented_with_its_variable_and_default() -> None:
    rows = {row[0]: row[1:] for row in documented()}
    assert set(rows) == set(Settings.model_fields)
    for key, (variable, default, meaning) in rows.items():
        assert variable == variable_of(key)
        assert default
        assert len(meaning) > 10


def test_documented_defaults_written_to_a_file_give_the_defaults(file: Path) -> None:
    file.write_text("".join(f"{key} = {default}\n" for key, _, default, _ in documented()))
    assert load_settings(file, {}) == Settings()
