"""Which packages a day on a borrowed GPU brings along, needs or finds there. Uses the standard library alone.

python tests/gpu/packages.py locked NAME...    NAME==VERSION of each, as uv.lock has it
python tests/gpu/packages.py need NAME>=X...   fails, naming every one that is missing or older
python tests/gpu/packages.py missing FOLDER    the wheels in FOLDER whose packages are not installed
python tests/gpu/packages.py versions NAME...  what is installed of them
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LOCK = Path(__file__).parents[2] / "uv.lock"


def installed(name: str) -> str | None:
    """The installed version of `name`; None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def locked(names: list[str]) -> list[str]:
    """`name==version` of each of `names`; of several locked versions the newest, which is the one for new Pythons.

    Exits naming those that uv.lock does not have.
    """
    versions: dict[str, str] = {}
    for package in tomllib.loads(LOCK.read_text("utf-8"))["package"]:
        versions[package["name"]] = max(versions.get(package["name"], ""), package.get("version", ""), key=_numbers)
    unknown = [name for name in names if name not in versions]
    if unknown:
        sys.exit(f"{LOCK.name} has no {', '.join(unknown)}: take them out of BROUGHT in day.sh")
    return [f"{name}=={versions[name]}" for name in names]


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+", maxsplit=1)[0].split(".")[:3] if part.isdigit())


def problems(needed: list[str]) -> list[str]:
    """What of `needed` (`name` or `name>=version`) is missing or older than that."""
    wrong = []
    for want in needed:
        name, _, least = want.partition(">=")
        found = installed(name)
        if found is None:
            wrong.append(f"{name} is missing")
        elif _numbers(found) < _numbers(least):
            wrong.append(f"{name} is {found}, wanted {least} or newer")
    return wrong


def missing(folder: str) -> list[str]:
    """The wheels in `folder` to install: a package that is there is never shadowed by another version of itself."""
    return [str(wheel) for wheel in sorted(Path(folder).glob("*.whl")) if installed(wheel.name.split("-")[0]) is None]


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "locked":
        print(*locked(rest))
    elif verb == "need":
        sys.exit("; ".join(problems(rest)) or 0)
    elif verb == "missing":
        print(*missing(rest[0]))
    elif verb == "versions":
        print(*(f"{name} {installed(name) or 'absent'}" for name in rest), sep="  ")
    else:
        sys.exit(__doc__)
