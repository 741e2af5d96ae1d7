"""What must hold before the daemon can work: `serve` refuses at the first thing that does not, `check` shows all."""

import logging
import os
import shutil
import sysconfig
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from anyio import to_thread

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.bundles.compatibility import check_agreement
from imgdiffd.daemon import places
from imgdiffd.daemon.ground import Caution, Finding, Ground
from imgdiffd.errors import BundleError, ConfigurationError, ImgdiffdError
from imgdiffd.fleet.cards import resolve_devices
from imgdiffd.fleet.footprints import Measurements
from imgdiffd.fleet.planner import FREE_WAIT_S, Planner, why_no_removal
from imgdiffd.fleet.supervisor import compiles
from imgdiffd.hub import problems
from imgdiffd.method.profile import load_profile
from imgdiffd.store.connection import refuse_held, version_in
from imgdiffd.store.damage import refuse_lost
from imgdiffd.store.migration import SCHEMA_VERSION

_log = logging.getLogger(__name__)


async def _settings_file(ground: Ground) -> str:
    if ground.file is None:
        return "none: defaults and the environment"
    if why := places.open_to_others(ground.file):
        raise Caution(why, f"chmod o-w {ground.file}")
    return str(ground.file)


async def _bundle(ground: Ground) -> str:
    ground.bundle = load_bundle(ground.settings.bundle)
    return f"{ground.bundle.name}: {ground.bundle.path}"


async def _models(ground: Ground) -> str:
    assert ground.bundle is not None
    if ground.models and (missing := problems(ground.bundle)):
        rest = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BundleError(
            f"bundle {ground.bundle.name}: {missing[0]}{rest}", hint="`imgdiffd models` lists every model and problem"
        )
    several = {ground.bundle.model(role).weights for role in ground.bundle.roles}  # one may play several roles
    return f"{len(several)} models are here"


async def _profile(ground: Ground) -> str:
    assert ground.bundle is not None
    profile = load_profile(ground.settings.profile or ground.bundle.profile)
    check_agreement(profile, ground.bundle)
    ground.profile = profile
    return f"{profile.name}, which bundle {ground.bundle.name} can run"


async def _devices(ground: Ground) -> str:
    found = resolve_devices(ground.settings.devices)
    ground.devices = found.places
    return found.text


async def _folders(ground: Ground) -> str:
    settings = ground.settings
    folders = {
        "state_folder": settings.state_folder,
        "inbox_folder": settings.inbox_folder,
        "the folder of images": ground.settings.images,
        "the folder of socket_path": settings.socket_path.parent,
    }
    if ground.devices and any(compiles(settings.compile, device) for device in ground.devices.values()):
        folders["compile_cache_folder"] = settings.compile_cache_folder
    for name, folder in folders.items():
        places.refuse_unusable(name, folder)
    places.refuse_nested(settings, ground.settings.images)
    ground.folders = list(folders.values())
    if kind := places.network_file_system(settings.state_folder):
        raise Caution(
            f"state_folder {settings.state_folder} is on a network file system ({kind}), on which SQLite can lose data",
            "put state_folder on a local disk",
        )
    return ", ".join(dict.fromkeys(map(str, folders.values())))


async def _placement(ground: Ground) -> str:
    assert ground.bundle is not None
    assert ground.profile is not None
    settings, bundle = ground.settings, ground.bundle
    measured = Measurements.of_folder(settings.state_folder)
    planner = Planner(bundle, ground.devices, measured, removal=settings.removal)
    busy = ground.beside_a_daemon()
    if busy:
        plan = planner.plan_empty()
    else:
        plan = await planner.plan(FREE_WAIT_S if ground.starting else 0)
    check_agreement(ground.profile, bundle, {role for held in plan.roles.values() for role in held})
    ground.planner, ground.plan = planner, plan
    lines = [*plan.lines(), *(["the memory of the daemon that runs now counts as free"] if busy else [])]
    if settings.removal and (why := why_no_removal(bundle, plan, wanted=True)):
        lines.append(f"no object removal: {why}")
    return "; ".join(lines)


async def _compiler(ground: Ground) -> str:
    compiled = [device for device in ground.devices.values() if compiles(ground.settings.compile, device)]
    if not compiled:
        return "not needed: nothing is compiled on these devices"
    found = {"cpu" if device == "cpu" else "cuda": _c_compiler(device) for device in compiled}
    if lacking := [f"a compiler for {kind}" for kind, compiler in found.items() if not compiler] + _lacking_headers():
        raise Caution(
            f"torch.compile lacks {' and '.join(lacking)}: models run uncompiled, which is slower",
            "apt install g++ python3-dev, or set compile = false",
        )
    return ", ".join(sorted(set(found.values())))


def _lacking_headers() -> list[str]:
    header = Path(sysconfig.get_path("include"), "Python.h")
    return [] if header.exists() else [str(header)]


def _c_compiler(device: str) -> str:
    """The compiler that Triton (C, on GPUs) or Inductor (C++, on CPUs) takes; '' where there is none."""
    names = [os.environ.get("CXX"), "g++"] if device == "cpu" else [os.environ.get("CC"), "gcc", "clang"]
    return next((found for name in names if name and (found := shutil.which(name))), "")


async def _room(ground: Ground) -> str:
    folder = places.nearest(ground.settings.state_folder)
    free_gib, least = shutil.disk_usage(folder).free / (1 << 30), ground.settings.min_free_gb
    if free_gib < least:
        text = f"{free_gib:.1f} GiB free at {folder}, below min_free_gb = {least:g}"
        raise Caution(text, "nothing is started until there is room: free some, or set min_free_gb lower")
    return f"{free_gib:.1f} GiB free at {folder}"


async def _lock(ground: Ground) -> str:
    try:
        refuse_held(ground.settings.database)
    except ImgdiffdError as error:
        if not ground.beside_a_daemon():
            raise
        raise Caution(error.message, "the next one can start once that one has stopped") from error
    return "none runs on this state folder"


async def _database(ground: Ground) -> str:
    if not ground.beside_a_daemon():
        refuse_lost(ground.settings.database, ground.settings.images)
    # The daemon reads all of it when it opens it, and notices damage while it runs.
    whole = not ground.starting and not ground.beside_a_daemon()
    version = await to_thread.run_sync(partial(version_in, ground.settings.database, whole=whole))
    if version is None:
        return f"{ground.settings.database}: new"
    upgrade = "" if version == SCHEMA_VERSION else f", which the next start upgrades to {SCHEMA_VERSION}"
    return f"{ground.settings.database}: schema version {version}{upgrade}"


async def _socket(ground: Ground) -> str:
    return places.socket_state(ground.settings.socket_path, answered=ground.beside_a_daemon(), ours=ground.starting)


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    look: Callable[[Ground], Awaitable[str]]
    needs: tuple[Literal["bundle", "profile", "devices", "folders"], ...] = ()


CHECKS = (  # the cheapest first, so that what is wrong with the settings is said at once
    _Check("settings", _settings_file),
    _Check("bundle", _bundle),
    _Check("models", _models, ("bundle",)),
    _Check("profile", _profile, ("bundle",)),
    _Check("devices", _devices),
    _Check("folders", _folders),
    _Check("placement", _placement, ("bundle", "profile", "devices")),
    _Check("compiler", _compiler, ("devices",)),
    _Check("room", _room, ("folders",)),
    _Check("other daemon", _lock, ("folders",)),
    _Check("database", _database, ("folders",)),
    _Check("socket", _socket, ("folders",)),
)


async def findings(ground: Ground) -> list[Finding]:
    """What every check says, in order."""
    return [await _finding(check, ground) for check in CHECKS]


async def refuse_first(ground: Ground) -> None:
    """Log the warnings; raise the error of the first check that refuses."""
    for check in CHECKS:
        found = await _finding(check, ground)
        if found.error is not None:
            raise found.error
        if found.state == "warning":
            _log.warning("%s: %s (%s)", found.check, found.text, found.hint)


async def _finding(check: _Check, ground: Ground) -> Finding:
    if lacking := [need for need in check.needs if not getattr(ground, need)]:
        return Finding(check.name, "not checked", f"this needs the {lacking[0]}")
    try:
        return Finding(check.name, "ok", await check.look(ground))
    except Caution as caution:
        return Finding(check.name, "warning", *caution.args)
    except OSError as error:
        refusal = ConfigurationError(f"{error.filename or check.name}: {error.strerror}", hint="check who may use it")
        refusal.__cause__ = error
        return _refused(check, refusal)
    except ImgdiffdError as error:
        return _refused(check, error)


def _refused(check: _Check, error: ImgdiffdError) -> Finding:
    return Finding(check.name, "refused", error.message, error.hint or "", error)
