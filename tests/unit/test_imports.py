"""Who may import whom, folder by folder, held by reading every import statement, lazy ones included."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "imgdiffd"

# The files beside the folders: records, enums and the one way to write a file, which everybody may know.
VOCABULARY = frozenset({"__init__", "durable", "errors", "heap", "job", "pipeline", "settings", "status"})

# Folder -> the other folders that it may import.
FOLDERS: dict[str, frozenset[str]] = {
    folder: frozenset(others.split())
    for folder, others in {
        "method": "",
        "bundles": "method",
        "hub": "bundles",
        "captions": "",
        "images": "",
        "inbox": "captions method store",
        "store": "images method",
        "importing": "export images method store",
        "export": "method store",
        "choosing": "method store",
        "statistics": "export method store",
        "schedulers": "",
        "kernels": "",
        "models": "bundles hub kernels method",
        "stages": "images kernels method models",
        "worker": "bundles fleet.wire kernels method models stages",
        "fleet": "bundles hub method schedulers",
        "daemon": "api bundles fleet hub images inbox method schedulers store",
        "api": "method store",
        "mini": "bundles captions export method models stages store",
    }.items()
}
FREE = frozenset({"__main__", "cli", "testing"})  # the entrance may import everything; the fakes are run by tests alone

# What the daemon's own process runs, and what it must never load: torch and all that stands on it.
PARENT = frozenset({"api", "bundles", "captions", "daemon", "export", "fleet", "hub", "images", "inbox", "method"})
PARENT |= {"choosing", "importing", "schedulers", "statistics", "store"}
CHILD = frozenset({"kernels", "mini", "models", "stages", "worker"})
ENGINE = frozenset(
    {"accelerate", "cv2", "diffusers", "safetensors", "tokenizers", "torch", "torchvision", "transformers", "triton"}
    | {"ultralytics", "xformers"}
)


def modules() -> Iterator[tuple[str, Path]]:
    """Every module with the folder that it is in, or its own name where it is in none. Symlinks are followed."""
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


def own_imports(path: Path) -> set[str]:
    """What a module imports of imgdiffd, without that name: `store.rows.TaskRow`, or `__init__` for the package."""
    names = (name.removeprefix("imgdiffd").removeprefix(".") for name in imported(path) if name.startswith("imgdiffd"))
    return {"__init__" if not name or name.startswith("__") else name for name in names}


def may_import(folder: str, name: str) -> bool:
    """Whether a module of `folder` may import this name of imgdiffd."""
    if name.partition(".")[0] in ({folder} if folder == "kernels" else VOCABULARY | {folder}):
        return True
    return folder in FOLDERS and any(name == other or name.startswith(f"{other}.") for other in FOLDERS[folder])


ALL = sorted(modules(), key=str)


@pytest.mark.parametrize("folder", sorted({folder for folder, _ in ALL} - FREE))
def test_folder_imports_only_what_it_may(folder: str) -> None:
    assert folder in FOLDERS or folder in VOCABULARY, f"{folder} is new: give it a row in this table"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for each, path in ALL
        if each == folder
        for name in own_imports(path)
        if not may_import(folder, name)
    ]
    assert not wrong


def test_table_names_only_what_is_there() -> None:
    assert set(FOLDERS) | FREE | VOCABULARY == {folder for folder, _ in ALL}


def test_table_has_no_circle() -> None:
    left = {folder: {other.partition(".")[0] for other in others} for folder, others in FOLDERS.items()}
    left["worker"] -= {"fleet"}  # the wire format alone, which imports nothing of the fleet
    while ends := [folder for folder, others in left.items() if not others & set(left)]:
        for folder in ends:
            del left[folder]
    assert not left


def test_what_the_parent_runs_never_imports_what_the_worker_runs() -> None:
    assert not [
        (folder, name)
        for folder, path in ALL
        if folder in PARENT
        for name in own_imports(path)
        if name.partition(".")[0] in CHILD
    ]


def test_what_the_parent_runs_never_imports_torch() -> None:
    assert not [
        (folder, name)
        for folder, path in ALL
        if folder in PARENT | VOCABULARY
        for name in imported(path)
        if name.partition(".")[0] in ENGINE
    ]


@pytest.mark.parametrize(
    "module",
    [
        "imgdiffd.cli.main",
        "imgdiffd.daemon.serve",
        "imgdiffd.export",
        "imgdiffd.inbox",
        "imgdiffd.method.nouns",
        "imgdiffd.statistics.gathering",
    ],
)
def test_parent_process_never_loads_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'diffusers'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_kernels_have_no_init_and_shadow_no_package() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert (PACKAGE / "kernels").is_symlink()
    assert (PACKAGE / "schedulers").is_symlink()


def test_no_module_is_a_drawer_for_everything() -> None:
    stems = {path.stem for _, path in ALL} | {path.parent.name for _, path in ALL}
    assert not stems & {"utils", "util", "helpers", "common", "misc"}


def test_no_two_public_classes_have_one_name() -> None:
    found = Counter(
        node.name
        for _, path in ALL
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in found.items() if times > 1] == []
