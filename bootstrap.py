"""Fetch the `uv` that `uv.lock` pins into `.tools/`, with nothing but Python's standard library.

It owns that one download: the address and the SHA-256 both come from `uv.lock`. It does not install packages; uv does.
A fresh Debian has neither pip nor the venv module, so `make` cannot count on either.
"""

import hashlib
import io
import platform
import ssl
import sys
import tomllib
import urllib.request
import zipfile
from pathlib import Path
from urllib.error import URLError

ROOT = Path(__file__).resolve().parent
TARGET = ROOT / ".tools" / "uv"


def wheel() -> tuple[str, str]:
    """Address and SHA-256 of the pinned uv wheel for this machine."""
    machine = platform.machine()
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))
    package = next(entry for entry in lock["package"] if entry["name"] == "uv")
    for entry in package["wheels"]:
        name = entry["url"].rpartition("/")[2]
        if "manylinux" in name and name.endswith(f"{machine}.whl"):
            return entry["url"], entry["hash"].removeprefix("sha256:")
    sys.exit(f"bootstrap: no uv for {platform.system()} {machine} in uv.lock; install uv yourself and run make again")


def fetch(url: str) -> bytes:
    """The file behind `url`. Without the system's certificates it is fetched all the same: the hash is what counts."""
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            return bytes(answer.read())
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLCertVerificationError):
            sys.exit(f"bootstrap: cannot fetch uv: {error.reason}; check the network, or install uv and run make again")
        with urllib.request.urlopen(url, timeout=120, context=ssl._create_unverified_context()) as answer:
            return bytes(answer.read())


def main() -> None:
    """Leave an executable `.tools/uv` whose wheel has the pinned hash."""
    if TARGET.exists():
        return
    url, expected = wheel()
    print(f"fetching {url}", flush=True)
    data = fetch(url)
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(f"bootstrap: uv's wheel has SHA-256 {found}, uv.lock says {expected}; nothing was installed")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        binary = archive.read(member)
    TARGET.parent.mkdir(exist_ok=True)
    partial = TARGET.with_suffix(".part")
    partial.write_bytes(binary)
    partial.chmod(0o755)
    partial.rename(TARGET)


if __name__ == "__main__":
    main()
