"""How one daemon runs: folders, devices and limits, read from a TOML file and the environment."""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from imgdiffd.errors import SettingsError, wrong_values

NAME = "imgdiffd.toml"
SYSTEM_FILE = Path("/etc/imgdiffd", NAME)
FILE_VARIABLE = "IMGDIFFD_CONFIG"
PREFIX = "IMGDIFFD_"
_MAX_BYTES = 1 << 20

_HINT = "`imgdiffd settings` lists every key"
_DEVICE = re.compile(r"cpu|cuda:(0|[1-9][0-9]{0,5})")
_WHOLE = re.compile("[+-]?[0-9]{1,100}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SWITCHES = {
    **dict.fromkeys(("1", "true", "yes", "on", "t", "y"), True),
    **dict.fromkeys(("0", "false", "no", "off", "f", "n"), False),
}
KeepImages = Literal["samples", "all"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
AttentionChoice = Literal["auto", "xformers", "sdpa"]
CompileChoice = bool | Literal["auto", "max-autotune"]


class Settings(BaseModel):
    """Frozen; every key may be given in the TOML file or, over it, as IMGDIFFD_ and its name in capitals.

    `inbox_folder`, `socket_path` and `compile_cache_folder` default to `inbox`, `imgdiffd.sock` and `compile-cache` in
    `state_folder`. Relative paths in a
    file are relative to that file's folder, those of the environment to the working folder; `~` is the user's home.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    state_folder: Annotated[Path, Field(description="database, images and socket; created where it does not exist")] = (
        Path("/var/lib/imgdiffd")
    )
    inbox_folder: Annotated[Path, Field(description="caption files dropped here become jobs")] = Path()
    socket_path: Annotated[Path, Field(description="the Unix socket of the HTTP endpoint, at most 107 bytes")] = Path()
    bundle: Annotated[
        str,
        Field(
            min_length=1,
            description="the models: mini, compact, small, paper, a folder with a bundle.toml, or a .toml file",
        ),
    ] = "mini"
    profile: Annotated[
        str, Field(description="the profile of jobs that name none; empty: the one that the bundle asks for")
    ] = ""
    devices: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description='one worker process each: "cpu" (repeatable), "cuda:0", …; or "auto": every NVIDIA GPU or MIG '
            "instance that CUDA_VISIBLE_DEVICES leaves",
        ),
    ] = ("auto",)
    threads_per_device: Annotated[
        int, Field(ge=0, le=1024, description="CPU threads of a worker; 0: the cores divided among the devices")
    ] = 0
    compile: Annotated[
        CompileChoice,
        Field(
            description='compile the models with torch.compile when they load; "auto": on GPUs, since CPUs gain '
            'nothing; "max-autotune": also time several kernels for each product of painter and eraser, once'
        ),
    ] = "auto"
    compile_cache_folder: Annotated[
        Path, Field(description="compiled kernels are kept here, so that a restart need not compile again")
    ] = Path()
    attention: Annotated[
        AttentionChoice,
        Field(
            description="auto: on GPUs older than Hopper the faster of xformers and torch's own (sdpa), timed once; "
            "elsewhere sdpa"
        ),
    ] = "auto"
    removal: Annotated[
        bool,
        Field(
            description="object removal too, of every pair that is similar enough, while no captions are waiting; "
            "where the bundle has no eraser it is left out, and `imgdiffd status` says so"
        ),
    ] = True
    open_tasks: Annotated[
        int, Field(ge=1, le=1_000_000, description="captions held in memory for the devices; the rest waits on disk")
    ] = 512
    open_gb: Annotated[
        float, Field(gt=0, le=1_000_000, description="GB that the images of open captions may take, uncompressed")
    ] = 16.0
    in_flight: Annotated[
        int, Field(ge=1, le=8, description="batches sent to a worker at once; 2 keeps a GPU from waiting")
    ] = 2
    poll_s: Annotated[float, Field(ge=0.05, le=3600, description="seconds between two scans of the inbox")] = 1.0
    settle_s: Annotated[
        float, Field(ge=0, le=3600, description="seconds without change after which a caption file is taken")
    ] = 2.0
    drain_s: Annotated[
        float, Field(ge=0, le=86400, description="seconds that running batches get to finish when the daemon stops")
    ] = 60.0
    min_free_gb: Annotated[
        float,
        Field(
            ge=0,
            le=1_000_000,
            description="free disk space in GiB below which nothing new is started; "
            "on a disk smaller than that, a tenth of the disk",
        ),
    ] = 2.0
    keep_pictures: Annotated[
        KeepImages,
        Field(
            description="samples: images of rejected pairs are deleted, their scores, texts and seeds kept; "
            "all: every image is kept, which takes several times the space"
        ),
    ] = "samples"
    keep_jobs_days: Annotated[
        float,
        Field(
            ge=0,
            le=36500,
            description="days after its end at which a job is deleted with its rows and images; 0: never",
        ),
    ] = 0.0
    keep_done_gb: Annotated[
        float,
        Field(
            ge=0,
            le=1_000_000,
            description="GB of caption files kept in `done` of the inbox, the newest; those of open jobs always stay",
        ),
    ] = 10.0
    log_level: Annotated[LogLevel, Field(description=f"one of {', '.join(get_args(LogLevel))}")] = "info"
    log_format: Annotated[
        LogFormat, Field(description="text: lines for people; json: an object a line, for programs that collect logs")
    ] = "text"

    @field_validator("devices", mode="before")
    @classmethod
    def _one_device(cls, value: object) -> object:
        if isinstance(value, list):
            return tuple(value)
        return (value,) if isinstance(value, str) else value

    @field_validator("devices")
    @classmethod
    def _known_devices(cls, devices: tuple[str, ...]) -> tuple[str, ...]:
        if devices == ("auto",):
            return devices
        for device in devices:
            if not _DEVICE.fullmatch(device):
                raise ValueError(f'{device!r} is not "cpu" or "cuda:N"; "auto" stands alone')
        repeated = {device for device in devices if device != "cpu" and devices.count(device) > 1}
        if repeated:
            raise ValueError(f"{', '.join(sorted(repeated))} named twice; a GPU has one worker")
        return devices

    @model_validator(mode="before")
    @classmethod
    def _default_places(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        state = data.get("state_folder", cls.model_fields["state_folder"].default)
        if not isinstance(state, str | Path) or not str(state):
            return data  # the field's own check says what is wrong
        return {
            "inbox_folder": Path(state, "inbox"),
            "socket_path": Path(state, "imgdiffd.sock"),
            "compile_cache_folder": Path(state, "compile-cache"),
            **data,
        }

    @field_validator("state_folder", "inbox_folder", "socket_path", "compile_cache_folder")
    @classmethod
    def _whole_path(cls, path: Path) -> Path:
        if "\0" in str(path):
            raise ValueError("a path cannot have a NUL character")
        if not path.is_absolute():
            raise ValueError(f"{str(path)!r} is not an absolute path")
        return path

    @field_validator("socket_path")
    @classmethod
    def _socket_fits(cls, path: Path) -> Path:
        if len(os.fsencode(path)) > 107:  # sun_path of unix(7), less its end mark
            raise ValueError(f"{path} is longer than the 107 bytes that a Unix socket's path may have")
        return path

    @model_validator(mode="after")
    def _inbox_apart(self) -> "Settings":
        if self.inbox_folder == self.state_folder or self.inbox_folder in self.state_folder.parents:
            raise ValueError(f"inbox_folder {self.inbox_folder} holds state_folder; the database is no caption file")
        return self

    @property
    def database(self) -> Path:
        """Where the database is, or will be."""
        return self.state_folder / "state.db"

    @property
    def images(self) -> Path:
        """The folder of the images."""
        return self.state_folder / "pictures"


PATHS = tuple(name for name, field in Settings.model_fields.items() if field.annotation is Path)


def variable_of(key: str) -> str:
    """The environment variable that sets `key`."""
    return PREFIX + key.upper()


def find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file: the one given, else that of $IMGDIFFD_CONFIG, else the first of these that exists.

    `imgdiffd.toml` in the working folder, the user's own, the system's. Raises SettingsError where a file that nobody
    named could have been put there by another user.
    """
    if path is not None:
        return path
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    places = [Path(NAME)]
    if environ.get("XDG_CONFIG_HOME"):
        places.append(Path(environ["XDG_CONFIG_HOME"], "imgdiffd", NAME))
    elif environ.get("HOME"):
        places.append(Path(environ["HOME"], ".config", "imgdiffd", NAME))
    found = next((file for file in (*places, SYSTEM_FILE) if os.path.exists(file)), None)  # not where one may not look
    if found is None:
        return None
    if found != SYSTEM_FILE:
        try:
            _refuse_strangers(found)
        except OSError as error:  # it went away just now
            raise _unreadable(found, error) from error
    return found.absolute()


def _refuse_strangers(file: Path) -> None:
    """Settings say which programs' files are loaded: nobody but the user and root may have written them."""
    status = file.stat()
    if status.st_uid not in (os.geteuid(), 0):
        reason = "belongs to another user"
    elif status.st_mode & stat.S_IWOTH:
        reason = "may be written by everyone"
    else:
        return
    raise SettingsError(
        f"{file.absolute()} {reason}, so it is not read unasked",
        hint="give it with --config if you trust it, or stand in another folder",
    )


def _absolute(where: str, key: str, value: object, folder: Path) -> object:
    """The value of `key`, a path made absolute. Raises SettingsError, which names `where`, for a home that is none."""
    if not isinstance(value, str):
        return value
    try:
        if key in PATHS:
            return folder / Path(value).expanduser() if value else Path()
        if key in ("bundle", "profile") and ("/" in value or value.endswith(".toml")):
            return str(folder / Path(value).expanduser())
    except RuntimeError as error:
        user = value.partition("/")[0].removeprefix("~")
        raise SettingsError(f"{where}: there is no user {user!r} whose home ~{user} is", hint=_HINT) from error
    return value


def _read_file(path: Path) -> tuple[dict[str, object], str]:
    try:
        text = _text_in(path)
        return tomllib.loads(text), text
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 at byte {error.start}", hint="save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}", hint="correct the TOML") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: nested too deeply", hint="correct the TOML") from error


def _text_in(path: Path) -> str:
    """What the file says. Raises SettingsError for one that has no end; a reload would wait for it for good."""
    if stat.S_ISFIFO(path.stat().st_mode) and os.path.exists(os.path.realpath(path)):  # unlike what a shell hands over
        raise SettingsError(f"{path}: a named pipe, not a file", hint="name a readable file with --config")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise SettingsError(f"{path}: larger than {_MAX_BYTES} bytes", hint="name a settings file with --config")
    return data.decode("utf-8")


def _unreadable(path: Path, error: OSError) -> SettingsError:
    reason = error.strerror or str(error)
    return SettingsError(f"{path}: cannot be read: {reason}", hint="name a readable file with --config")


def _line_of(key: str, text: str) -> int | None:
    pattern = re.compile(rf"""\s*(?:\[+\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), None)


def _from_environment(environ: Mapping[str, str], folder: Path) -> dict[str, object]:
    values: dict[str, object] = {}
    known = {variable_of(key): key for key in Settings.model_fields}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        if variable not in known:
            raise SettingsError(f"${variable}: no such setting", hint=_HINT)
        key = known[variable]
        values[key] = _absolute(f"${variable}={value}", key, _parsed(key, value), folder)
    return values


def _parsed(key: str, text: str) -> object:
    """What a variable's text stands for; the text itself where that is none of what its key takes."""
    kind = Settings.model_fields[key].annotation
    if key == "devices":
        return tuple(part.strip() for part in text.split(","))
    if kind is int and _WHOLE.fullmatch(text):
        return int(text)
    if kind is float and _NUMBER.fullmatch(text):
        return float(text)
    if bool in (kind, *get_args(kind)):
        return _SWITCHES.get(text.lower(), text)
    return text


def load_settings(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of `path` (or of `find_file`'s) with the environment's over them.

    Raises SettingsError naming file and line, or the variable, of the first key that is unknown or wrong.
    """
    file = find_file(path, environ)
    in_file, text = _read_file(file) if file is not None else ({}, "")
    folder = file.absolute().parent if file is not None else Path.cwd()
    places = {key: f"{file}, line {_line_of(key, text) or '?'}: {key}" for key in in_file}
    from_file = {key: _absolute(places[key], key, value, folder) for key, value in in_file.items()}
    from_environment = _from_environment(environ, Path.cwd())
    try:
        return Settings.model_validate(from_file | from_environment, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        reason = "no such setting" if first["type"] == "extra_forbidden" else wrong_values(error.errors())
        if key in from_environment:
            where = f"${variable_of(key)}={environ[variable_of(key)]}"
        elif key in from_file:
            where = places[key]
        else:
            where = key or str(file or "settings")
        raise SettingsError(f"{where}: {reason}", hint=_HINT) from error


def documented() -> list[tuple[str, str, str, str]]:
    """Key, environment variable, default (TOML) and meaning of each setting, for `imgdiffd settings` and its page."""
    shown = Settings()
    rows = []
    for key, field in Settings.model_fields.items():
        rows.append((key, variable_of(key), _as_toml(getattr(shown, key)), field.description or ""))
    return rows


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_as_toml(part) for part in value) + "]"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)
