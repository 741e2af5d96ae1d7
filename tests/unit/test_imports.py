"""Who may import whom: the layers of the house, held by reading every import statement, lazy ones included."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "imgdiffd"

# Pure data and decisions: nothing here may ever wait, draw on a device or open the database.
FLOOR = frozenset(
    {"__init__", "errors", "settings", "profile", "job", "pipeline", "selection", "message", "wire"}
    | {"words", "rewriting", "advance", "agreement", "bundle", "status", "picture_files", "removal", "removal_message"}
    | {"retention"}
)
ENGINE = frozenset(
    {"torch", "torchvision", "triton", "xformers", "diffusers", "transformers", "tokenizers", "ultralytics"}
    | {"safetensors", "accelerate", "huggingface_hub", "cv2", "PIL", "numpy"}
)

# Part -> the other parts that it may import beside the floor, and the packages of others.
LAYERS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "data": (frozenset(), frozenset()),
    "sweep": (frozenset(), frozenset()),
    "tidy": (frozenset({"store", "sweep"}), frozenset({"anyio"})),
    "disk": (frozenset(), frozenset({"anyio"})),
    "notify": (frozenset(), frozenset({"anyio"})),
    "reload": (frozenset(), frozenset({"anyio"})),
    "captions": (frozenset(), frozenset({"ijson", "pyarrow"})),
    "schedulers": (frozenset(), frozenset({"anyio"})),
    "kernels": (frozenset(), frozenset({"torch", "triton", "xformers"})),
    "models": (frozenset({"hub", "kernels"}), ENGINE),
    "stages": (frozenset({"models", "kernels"}), ENGINE),
    "worker": (frozenset({"stages", "models"}), frozenset({"torch"})),
    "store": (frozenset(), frozenset({"aiosqlite", "anyio"})),
    "inbox": (frozenset({"store", "captions"}), frozenset({"anyio"})),
    "process": (frozenset(), frozenset({"anyio"})),
    "device": (frozenset({"process"}), frozenset({"anyio"})),
    "memory": (frozenset({"schedulers"}), frozenset({"pynvml"})),
    "footprints": (frozenset({"hub", "schedulers"}), frozenset()),
    "placing": (frozenset({"footprints", "memory", "schedulers"}), frozenset({"anyio"})),
    "fleet": (frozenset({"device"}), frozenset({"anyio"})),
    "experience": (frozenset({"schedulers"}), frozenset({"anyio"})),
    "dispatch": (frozenset({"device", "disk", "schedulers", "store"}), frozenset({"anyio"})),
    "api": (frozenset({"store"}), frozenset({"fastapi", "uvicorn", "starlette", "pydantic", "anyio"})),
    "events": (frozenset({"store"}), frozenset({"fastapi", "starlette", "pydantic", "anyio"})),
    "control": (
        frozenset({"api", "disk", "fleet", "inbox", "reload", "schedulers", "store", "tidy"}),
        frozenset({"anyio"}),
    ),
    "daemon": (
        frozenset(
            {"api", "control", "disk", "dispatch", "fleet", "footprints", "hub", "inbox", "placing", "schedulers"}
        )
        | {"events", "experience", "notify", "reload", "store", "tidy"},
        frozenset({"anyio"}),
    ),
    "hub": (frozenset(), frozenset({"huggingface_hub", "httpx"})),
    "cli_models": (
        frozenset({"client", "fleet", "footprints", "hub", "memory", "placing", "schedulers", "terminal"}),
        frozenset(),
    ),
    "cli_export": (frozenset({"export", "store"}), frozenset()),
    "client": (frozenset(), frozenset({"httpx", "pydantic"})),
    "terminal": (frozenset({"schedulers"}), frozenset({"rich"})),
    "export": (frozenset({"store"}), frozenset({"PIL", "numpy", "pyarrow"})),
    "trial": (frozenset({"demo", "models", "stages", "store"}), ENGINE | {"anyio", "rich"}),
    "demo": (frozenset({"client", "export", "store", "terminal"}), frozenset({"rich"})),
}
FLOOR_PACKAGES = frozenset({"pydantic", "numpy"})
FREE = frozenset({"__main__", "cli", "testing"})  # the entrance, and what only tests run


def modules() -> Iterator[tuple[str, Path]]:
    """Every module with its part: the first name below `imgdiffd`. The links to schedulers and kernels are followed."""
    for path in PACKAGE.iterdir():
        if path.suffix == ".py":
            yield path.stem, path
        elif path.is_dir():
            for module in path.resolve().rglob("*.py"):
                yield path.name, module


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def uses(path: Path) -> tuple[set[str], set[str]]:
    """The parts of imgdiffd and the foreign packages that a module imports."""
    parts: set[str] = set()
    packages: set[str] = set()
    for name in imported(path):
        first, _, rest = name.partition(".")
        if first == "imgdiffd":
            parts.add(rest.partition(".")[0] if rest and not rest.startswith("__") else "__init__")
        elif first not in sys.stdlib_module_names:
            packages.add(first)
    return parts, packages


ALL = sorted(modules(), key=str)


@pytest.mark.parametrize(("part", "path"), ALL, ids=[str(path.relative_to(ROOT)) for _, path in ALL])
def test_module_imports_only_what_its_layer_may(part: str, path: Path) -> None:
    if part in FREE:
        return
    parts, packages = uses(path)
    if part in FLOOR:
        assert parts - {part} <= FLOOR
        assert packages <= FLOOR_PACKAGES
        return
    assert part in LAYERS, f"{part}: a new part; give it its place in this table"
    may_parts, may_packages = LAYERS[part]
    assert parts - {part} <= FLOOR | may_parts
    assert packages <= may_packages | FLOOR_PACKAGES


def test_table_names_only_what_is_there() -> None:
    assert set(LAYERS) | FREE | FLOOR == {part for part, _ in ALL}


def test_only_the_command_imports_the_daemon() -> None:
    users = {part for part, path in ALL if "daemon" in uses(path)[0]}
    assert users == {"cli"}


def test_kernels_know_nothing_of_the_rest() -> None:
    for part, path in ALL:
        if part == "kernels":
            assert uses(path)[0] <= {"kernels"}


def test_kernels_have_no_init_so_that_no_package_of_that_name_is_shadowed() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert (PACKAGE / "kernels").is_symlink()
    assert (PACKAGE / "schedulers").is_symlink()


def test_no_module_is_a_drawer_for_everything() -> None:
    stems = {path.stem for _, path in ALL} | {path.parent.name for _, path in ALL}
    assert not stems & {"utils", "util", "helpers", "common", "misc"}


@pytest.mark.parametrize("module", ["imgdiffd.cli", "imgdiffd.daemon", "imgdiffd.inbox", "imgdiffd.rewriting"])
def test_parent_process_never_loads_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'diffusers'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
