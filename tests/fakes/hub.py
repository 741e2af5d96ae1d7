"""A local hub over plain HTTP, with the routes needed to list and fetch a repository."""

import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LARGE_BYTES = 1000  # files at least this large are named by their SHA-256, as large files are on the real hub


@dataclass
class FakeHub:
    """Serves `repositories`: a dictionary of file contents for each repository.

    `asked` has a line for each request, `fetched` one for each file body sent, with the requested Range.
    `tokens` are the tokens with which file bodies were requested: another host serves the large ones and must get none.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    cut_at: int | None = None  # longer file bodies are cut off here, and the connection is closed

    def add_folder(self, source: str, folder: Path) -> None:
        """Serve the files of `folder` as the repository `source`."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories[source] = files

    def commit(self, source: str) -> str:
        """The only commit of `source`, which changes with the content."""
        digest = hashlib.sha1()
        for name, content in sorted(self.repositories[source].items()):
            digest.update(name.encode() + content)
        return digest.hexdigest()


def listing(content: bytes) -> dict[str, Any]:
    """A file's entry in a repository's listing."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"size": len(content), "blobId": blob}
    if len(content) >= LARGE_BYTES:
        entry["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
    return entry


def tensor_file(size: int = 16) -> bytes:
    """The bytes of a safetensors file with one tensor of `size` bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def safetensors(path: Path, cut: int = 0) -> None:
    """Write a safetensors file, `cut` bytes short, with an empty configuration beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tensor_file()[: -cut or None])
    (path.parent / "config.json").write_text("{}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[0] == "cdn":
            self._send_body("/".join(parts[1:3]), "/".join(parts[3:]), {})
            return
        is_api = parts[:2] == ["api", "models"]
        source = "/".join(parts[2:4] if is_api else parts[:2])
        if source not in self.hub.repositories:
            self._refuse(404, "RepoNotFound")
        elif is_api and parts[4:] == ["auth-check"]:
            self._refuse(403, "GatedRepo") if source in self.hub.gated else self._send(200, b"{}")
        elif (is_api and parts[5:6] not in ([], ["main"], [self.hub.commit(source)])) or (
            not is_api and parts[3] not in ("main", self.hub.commit(source))
        ):
            self._refuse(404, "RevisionNotFound")
        elif is_api:
            self._send(200, self._model_info(source), {"Content-Type": "application/json"})
        else:
            self._send_file(source, "/".join(parts[4:]))

    def _model_info(self, source: str) -> bytes:
        files = self.hub.repositories[source]
        siblings = [{"rfilename": name, **listing(content)} for name, content in files.items()]
        gated = "manual" if source in self.hub.gated else False
        info = {"id": source, "sha": self.hub.commit(source), "private": False, "gated": gated, "siblings": siblings}
        return json.dumps(info).encode()

    def _send_file(self, source: str, name: str) -> None:
        content = self.hub.repositories[source].get(name)
        headers = {"X-Repo-Commit": self.hub.commit(source)}
        if content is None:
            self._refuse(404, "EntryNotFound")
        elif "lfs" in (entry := listing(content)):
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{entry["lfs"]["sha256"]}"'}
            headers["Location"] = f"http://localhost:{urlsplit(self.hub.url).port}/cdn/{source}/{name}"
            self._send(302, b"", headers)
        else:
            self._send_body(source, name, {**headers, "ETag": f'"{entry["blobId"]}"'})

    def _send_body(self, source: str, name: str, headers: dict[str, str]) -> None:
        content = self.hub.repositories[source][name]
        given = self.headers.get("Range", "")
        if self.command == "GET":
            self.hub.fetched.append(f"{source}/{name} {given}".strip())
            self.hub.tokens.add(self.headers.get("Authorization"))
        if given:
            start = int(given.removeprefix("bytes=").rstrip("-"))
            content_range = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206, content[start:], {**headers, "Content-Range": content_range})
        else:
            self._send(200, content, headers)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut_at = self.hub.cut_at
        if self.path.startswith("/cdn/") and cut_at is not None and len(body) > cut_at:
            self.wfile.write(body[:cut_at])
            self.close_connection = True
        else:
            self.wfile.write(body)


def use(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point huggingface_hub in this process at `hub` and `cache`, whatever the environment says."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.url)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HOME", str(cache.parent / "home"))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(cache / "token"))


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that serves until the end of the block."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
