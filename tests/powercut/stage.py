"""Packs what the guest needs: this interpreter, its libraries, the packages that the store imports, and drivers.

It owns which files those are and the archive that the kernel unpacks; it does not know QEMU or disks.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("aiosqlite", "anyio", "numpy", "pydantic")
_LEFT_OUT = ("site-packages", "test", "idlelib", "tkinter", "ensurepip", "lib2to3", "config-*", "bundle", "*.a")


def main(folder: Path) -> None:
    """Fill `folder/root` anew, drivers from `folder/modules`, and pack it as `folder/root.cpio`."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("dev", "proc", "sys", "tmp", "data", "site"):
        (root / name).mkdir(parents=True)
    interpreter = Path(sys.executable).resolve()
    _copy(interpreter, root)
    library = Path(sys.base_prefix, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}")
    shutil.copytree(library, _below(root, library), ignore=shutil.ignore_patterns(*_LEFT_OUT))
    for name in _with_requirements(PACKAGES):
        for file in importlib.metadata.files(name) or ():
            if ".." not in file.parts:
                target = root / "site" / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file.locate(), target)
    (root / "site" / "imgdiffd.dist-info").mkdir()  # of an editable installation, which has no files of its own
    metadata = f"Metadata-Version: 2.1\nName: imgdiffd\nVersion: {importlib.metadata.version('imgdiffd')}\n"
    (root / "site" / "imgdiffd.dist-info" / "METADATA").write_text(metadata)
    shutil.copytree(REPOSITORY / "imgdiffd", root / "site" / "imgdiffd", ignore=shutil.ignore_patterns(*_LEFT_OUT))
    for part in ("fakes/answers.py", "powercut/guest.py", "powercut/images.py"):
        target = root / "site" / "tests" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / "tests" / part, target)
    for binary in (interpreter, *library.rglob("*.so"), *(root / "site").rglob("*.so*")):
        for needed in _libraries(binary):
            _copy(needed, root)
    init = root / "init"
    script = "import sys\nsys.path.insert(0, '/site')\nfrom tests.powercut.guest import main\nmain()\n"
    init.write_text(f"#!{interpreter} -BIS\n{script}")
    init.chmod(0o755)
    shutil.copytree(folder / "modules", root / "modules")
    with (folder / "root.cpio").open("wb") as archive:
        pack(root, archive)


def pack(root: Path, archive: BinaryIO) -> None:
    """Write everything below `root` as the kernel wants it: cpio's "newc", owned by root. Links are followed."""
    number = 0
    for number, path in enumerate(sorted(root.rglob("*")), 1):
        content = path.read_bytes() if path.is_file() else b""
        _pack_one(archive, number, path.stat().st_mode, str(path.relative_to(root)).encode(), content)
    _pack_one(archive, number + 1, 0, b"TRAILER!!!", b"")


def _pack_one(archive: BinaryIO, number: int, mode: int, name: bytes, content: bytes) -> None:
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    for part in (head, content):
        archive.write(part + b"\0" * (-len(part) % 4))


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _copy(file: Path, root: Path) -> None:
    target = _below(root, file)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


def _libraries(binary: Path) -> Iterator[Path]:
    """What the loader takes for it, by the very names."""
    told = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    for line in told.splitlines():
        if found := re.search(r"(?:=> |^\s)(/\S+) \(", line):
            yield Path(found[1])


def _with_requirements(names: tuple[str, ...]) -> list[str]:
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = None
        for requirement in importlib.metadata.requires(name) or () if _installed(name) else ():
            bare, _, marker = requirement.partition(";")
            if "extra" not in marker:
                waiting += re.findall(r"^[\w.-]+", bare)
    return [name for name in found if _installed(name)]


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False  # a requirement of another Python or platform
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
