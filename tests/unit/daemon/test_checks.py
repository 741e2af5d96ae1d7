"""`serve` and `check` find the same things wrong, and say them in the same words."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from imgdiffd.api.listening import bind
from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.daemon import checks, places
from imgdiffd.daemon.checks import findings
from imgdiffd.daemon.ground import Finding, Ground
from imgdiffd.daemon.serve import serve
from imgdiffd.errors import ConfigurationError, ImgdiffdError
from imgdiffd.fleet import memory
from imgdiffd.settings import Settings
from imgdiffd.store.connection import locked
from imgdiffd.store.migration import SCHEMA_VERSION
from tests.fakes.nvml import four_cards

pytestmark = pytest.mark.anyio
Setup = Callable[[Path], dict[str, Any]]


@pytest.fixture(autouse=True)
def _steady_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory that a refusal names does not change while other processes come and go."""
    monkeypatch.setattr(memory, "_host_bytes", lambda _root: (32_000_000_000, 24_000_000_000))


def _mini(folder: Path, change: Callable[[str], str]) -> dict[str, Any]:
    shutil.copytree(load_bundle("mini").path.parent, folder / "own")
    file = folder / "own" / "bundle.toml"
    file.write_text(change(file.read_text()))
    return {"bundle": str(file)}


def _without_weights(folder: Path) -> dict[str, Any]:
    found = _mini(folder, str)
    for weights in (folder / "own").rglob("*.safetensors"):
        weights.unlink()
    return found


def _huge_rewriter(folder: Path) -> dict[str, Any]:
    return _mini(folder, lambda text: text.replace("[rewriter]", "[rewriter]\nweights_gb = 99000", 1))


def _profile_with_judge(folder: Path) -> dict[str, Any]:
    (folder / "own.toml").write_text('extends = "mini"\nnatural.enabled = true\n')
    return {"profile": str(folder / "own.toml")}


def _file(key: str, below: str = "") -> Setup:
    def setup(folder: Path) -> dict[str, Any]:
        (folder / "precious").write_text("precious")
        return {key: folder / "precious" / below if below else folder / "precious"}

    return setup


def _link(key: str, target: str) -> Setup:
    def setup(folder: Path) -> dict[str, Any]:
        (folder / "state").mkdir()
        (folder / "link").symlink_to(folder / target)
        return {key: folder / "link"}

    return setup


def _database(write: Callable[[Path], object]) -> Setup:
    def setup(folder: Path) -> dict[str, Any]:
        (folder / "state").mkdir()
        write(folder / "state" / "state.db")
        return {}

    return setup


def _sql(*orders: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            for order in orders:
                connection.execute(order)
            connection.commit()

    return write


def _damaged(path: Path) -> None:
    ours = ("PRAGMA application_id = 0x496D4469", f"PRAGMA user_version = {SCHEMA_VERSION}")
    _sql(*ours, "CREATE TABLE t (x)", "INSERT INTO t VALUES (zeroblob(20000))")(path)
    with path.open("r+b") as file:
        file.seek(1 * 4096)
        file.write(b"\xff" * 4096)


def _images_alone(folder: Path) -> dict[str, Any]:
    (folder / "state" / "pictures" / "000000").mkdir(parents=True)
    (folder / "state" / "pictures" / "000000" / "1.png").touch()
    return {}


BROKEN: dict[str, tuple[Setup, str]] = {
    "an unknown bundle": (lambda _: {"bundle": "nope"}, "bundle"),
    "models that are missing": (_without_weights, "models"),
    "an unknown profile": (lambda _: {"profile": "nope"}, "profile"),
    "a profile that the bundle cannot run": (_profile_with_judge, "profile"),
    "a state folder that is a file": (_file("state_folder"), "folders"),
    "a state folder in a file": (_file("state_folder", "state"), "folders"),
    "a watch folder that is a file": (_file("inbox_folder"), "folders"),
    "a watch folder that is a link to nowhere": (_link("inbox_folder", "gone"), "folders"),
    "a watch folder that is the state folder": (_link("inbox_folder", "state"), "folders"),
    "a watch folder among the images": (lambda folder: {"inbox_folder": folder / "state/pictures/in"}, "folders"),
    "a folder of kernels that is a file": (_file("compile_cache_folder"), "folders"),
    "models that are too large": (_huge_rewriter, "placement"),
    "a database that is none": (_database(lambda path: path.write_text("precious\n" * 1000)), "database"),
    "a database that is a folder": (_database(Path.mkdir), "database"),
    "another program's database": (_database(_sql("CREATE TABLE t (x)")), "database"),
    "a database of a later version": (
        _database(_sql("CREATE TABLE t (x)", "PRAGMA application_id = 0x496D4469", "PRAGMA user_version = 99")),
        "database",
    ),
    "a damaged database": (_database(_damaged), "database"),
    "images without their database": (_images_alone, "database"),
    "a socket in a file": (_file("socket_path", "s"), "folders"),
    "a file in the socket's place": (_file("socket_path"), "socket"),
}


def _settings(folder: Path, **changed: Any) -> Settings:
    return Settings.model_validate(
        {"state_folder": folder / "state", "devices": "cpu", "compile": True, "min_free_gb": 0, **changed}
    )


async def _said_by_serve(settings: Settings) -> str:
    with pytest.raises(ImgdiffdError) as refused:
        await serve(settings)
    return str(refused.value)


def _tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def _words(finding: Finding) -> str:
    return f"{finding.text} ({finding.hint})" if finding.hint else finding.text


@pytest.mark.parametrize("what", BROKEN)
async def test_check_refuses_what_serve_refuses_in_its_words(what: str, tmp_path: Path) -> None:
    setup, check = BROKEN[what]
    settings = _settings(tmp_path, **setup(tmp_path))
    before = _tree(tmp_path)
    found = await findings(Ground(settings))
    assert _tree(tmp_path) == before
    first = next(finding for finding in found if finding.state == "refused")
    assert first.check == check
    assert _words(first) == await _said_by_serve(settings)
    assert str(tmp_path / "state") not in map(str, set(_tree(tmp_path)) - set(before))  # nothing was begun


async def test_a_card_that_is_not_there_is_refused_by_both(tmp_path: Path) -> None:
    settings = _settings(tmp_path, devices="cuda:99")
    (first,) = (finding for finding in await findings(Ground(settings)) if finding.state == "refused")
    assert first.check == "devices"
    assert _words(first) == await _said_by_serve(settings)


async def test_check_says_which_cards_it_found_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", four_cards())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,7,0")
    found = {each.check: each for each in await findings(Ground(_settings(tmp_path, devices=("auto",))))}
    assert (found["devices"].state, found["devices"].text) == (
        "ok",
        "cuda:0 (NVIDIA A100-SXM4-80GB); "
        "$CUDA_VISIBLE_DEVICES=2,7,0 leaves 1 of 4, and ends at '7', which names no card here",
    )
    assert found["placement"].text.startswith("cuda:0 holds rewriter, painter")


async def test_two_things_wrong_are_both_shown_serve_says_one(tmp_path: Path) -> None:
    settings = _settings(tmp_path, profile="nope", **_file("socket_path")(tmp_path))
    found = [finding for finding in await findings(Ground(settings)) if finding.state != "ok"]
    assert [(finding.check, finding.state) for finding in found] == [
        ("profile", "refused"), ("placement", "not checked"), ("socket", "refused"),
    ]  # fmt: skip
    assert await _said_by_serve(settings) == _words(found[0])


async def test_a_daemon_of_another_state_on_the_socket_is_refused(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    settings.state_folder.mkdir()
    with bind(settings.socket_path):
        (found,) = (finding for finding in await findings(Ground(settings)) if finding.state != "ok")
        assert (found.check, found.state) == ("socket", "refused")
        assert _words(found) == await _said_by_serve(settings)


async def test_beside_its_daemon_check_is_about_the_next_start(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    settings.state_folder.mkdir()
    with locked(tmp_path / "state" / "state.db"), bind(settings.socket_path) as listener:
        (found,) = (finding for finding in await findings(Ground(settings)) if finding.state != "ok")
        assert (found.check, found.state) == ("other daemon", "warning")
        assert f"in use by another daemon (process {os.getpid()}" in found.text
        assert (await _said_by_serve(settings)).startswith(found.text)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody knocked
            listener.accept()


async def test_a_socket_that_systemd_holds_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(tmp_path)
    settings.state_folder.mkdir()
    (tmp_path / "systemctl").write_text(
        f"#!/bin/sh\necho 'ActiveState=active\nListen={settings.socket_path} (Stream)'\n"
    )
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with bind(settings.socket_path) as listener:
        found = await findings(Ground(settings))
        assert found[-1].text.endswith("handed over by systemd (imgdiffd.socket)")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # a knock would start the daemon
            listener.accept()


async def test_what_only_hinders_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "imgdiffd.toml"
    file.touch()
    file.chmod(0o666)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(places, "network_file_system", lambda _: "nfs4")
    found = await findings(Ground(_settings(tmp_path, min_free_gb=1_000_000), file))
    warned = {finding.check: finding.text for finding in found if finding.state == "warning"}
    assert warned.keys() == {"settings", "folders", "compiler", "room"}
    assert "may be changed by anybody" in warned["settings"]
    assert "nfs4" in warned["folders"]
    assert "a compiler for cpu: models run uncompiled" in warned["compiler"]
    assert "below min_free_gb = 1e+06" in warned["room"]


def test_a_settings_file_in_a_folder_open_to_all_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    file = tmp_path / "open" / "imgdiffd.toml"
    file.touch(0o600)
    assert places.open_to_others(file) == ""
    (tmp_path / "open").chmod(0o777)
    assert "may be replaced by anybody" in places.open_to_others(file)
    (tmp_path / "open").chmod(0o1777)
    assert places.open_to_others(file) == ""
    assert places.open_to_others(Path(os.devnull)) == ""


# In a process of its own that may no more than other users, whoever runs the test.
AS_OTHERS = """
import ctypes, struct, sys
header = struct.pack("Ii", 0x20080522, 0)
assert ctypes.CDLL(None).capset(header, bytes(24)) == 0
from imgdiffd.cli.main import main
main(sys.argv[1:])
"""


def _refused_to_others(folder: Path) -> tuple[str, str]:
    """The check that refuses first, and the sentence, which is also that of `serve`."""
    environ = {**os.environ, "IMGDIFFD_CONFIG": os.devnull, "IMGDIFFD_DEVICES": "cpu"}
    environ["IMGDIFFD_STATE_FOLDER"] = str(folder)
    told = {}
    for command in ("check --json", "serve"):
        ended = subprocess.run(
            [sys.executable, "-P", "-c", AS_OTHERS, *command.split()],
            env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode != 0
        told[command] = ended
    rows = json.loads(told["check --json"].stdout)["checks"]
    refused = next(row for row in rows if row["state"] == "refused")
    assert told["serve"].stderr.splitlines()[-1] == f"imgdiffd: {refused['text']} ({refused['hint']})"
    return refused["check"], refused["text"]


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_names_the_user(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode)
    sentence = f"state_folder {closed}/state: cannot be made in {closed} by user {places._user()}"
    assert _refused_to_others(closed / "state") == ("folders", sentence)
    closed.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "check", "why"),
    [
        ("state.db.lock", "other daemon", "cannot be opened: Permission denied"),
        ("state.db", "database", "this user may not read and write it"),
        ("state.db-wal", "database", "this user may not read and write it"),
    ],
)
def test_a_file_of_another_user_is_named(tmp_path: Path, name: str, check: str, why: str) -> None:
    (tmp_path / "state.db").touch()
    (tmp_path / name).touch()
    (tmp_path / name).chmod(0o444)
    assert _refused_to_others(tmp_path) == (check, f"{tmp_path / name}: {why}")


def test_another_users_dead_socket_in_a_folder_like_tmp_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "s"))
    tmp_path.chmod(0o1777)
    assert places.socket_state(tmp_path / "s", answered=False, ours=True).startswith(f"{tmp_path}/s, for user")
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 4242)
    with pytest.raises(ConfigurationError, match="the socket of another user's daemon, which has ended"):
        places.socket_state(tmp_path / "s", answered=False, ours=True)


def test_check_prints_a_line_for_each_check_and_loads_no_torch(tmp_path: Path) -> None:
    environ = {**os.environ, "IMGDIFFD_CONFIG": os.devnull, "IMGDIFFD_DEVICES": "cpu"}
    environ["IMGDIFFD_STATE_FOLDER"] = str(tmp_path / "state")
    ended = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "imgdiffd", "check"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0
    assert [line.split()[0] for line in ended.stdout.splitlines()] == [check.name.split()[0] for check in checks.CHECKS]
    assert " imgdiffd.hub" in ended.stderr
    assert " torch" not in ended.stderr
    assert _tree(tmp_path) == []
