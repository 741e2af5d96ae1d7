"""HTTP over a Unix socket: health, readiness, status, jobs.

It owns the routes and the socket's permissions; what it shows and does comes through `Control`, so it knows neither
scheduler nor devices.
"""

import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from pydantic import TypeAdapter

from imgdiffd.errors import ConfigurationError, DaemonError, ImgdiffdError, InputError
from imgdiffd.status import Funnel, JobView, Status

_log = logging.getLogger(__name__)

_JOBS = TypeAdapter(tuple[JobView, ...])
JobVerb = Literal["pause", "resume", "cancel", "retry"]
SOCKET_MODE = 0o660
SOCKET_NAME = "api"  # FileDescriptorName= of the socket unit
FIRST_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


class Control(Protocol):
    """What the API may ask of the daemon. Unknown jobs and items are None; refused changes raise DaemonError."""

    async def status(self) -> Status: ...
    async def jobs(self) -> tuple[JobView, ...]: ...
    async def job(self, job: int) -> JobView | None: ...
    async def funnel(self, job: int | None) -> Funnel: ...
    async def change_job(self, job: int, verb: JobVerb) -> JobView | None: ...
    async def submit(self, name: str, body: AsyncIterator[bytes], profile: str | None, priority: int) -> JobView: ...
    async def retry(self, job: int | None, reason: str | None) -> int: ...
    async def set_paused(self, paused: bool) -> None: ...
    async def explain(self, item: int) -> dict[str, Any] | None: ...


def _refusal(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status)


_JobNumber = PathParameter(ge=1, le=2**63 - 1)


def build_app(control: Control, version: str) -> FastAPI:
    """The application: every route, every error as `{"detail": sentence}`."""
    app = FastAPI(title="imgdiffd", version=version, docs_url=None, redoc_url=None)

    @app.exception_handler(ImgdiffdError)
    async def refuse(_request: Request, error: Exception) -> JSONResponse:
        status = 422 if isinstance(error, InputError | ConfigurationError) else 409
        return _refusal(status, str(error))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "something needed is not working"}})
    async def ready() -> JSONResponse:
        """Work can be done: a device is up, the inbox is readable, there is room on the disk."""
        status = await control.status()
        body = {"ready": status.ready, "problems": list(status.problems)}
        return JSONResponse(body, status_code=200 if status.ready else 503)

    @app.get("/status", response_model=Status)
    async def status() -> Response:
        """The daemon, its devices and its jobs."""
        # Written by pydantic: FastAPI would check and convert every record of a thousand jobs again.
        return Response((await control.status()).model_dump_json(), media_type="application/json")

    @app.get("/jobs", response_model=tuple[JobView, ...])
    async def jobs() -> Response:
        """Every job, newest first."""
        return Response(_JOBS.dump_json(await control.jobs()), media_type="application/json")

    @app.post("/jobs", responses={409: {}, 422: {}})
    async def submit(
        request: Request,
        name: str = Query(min_length=1, max_length=255, description="the file's name; its ending tells the format"),
        profile: str | None = Query(None, max_length=4096, description="a built-in one, or a file's path"),
        priority: int = Query(0, ge=-100, le=100),
    ) -> JobView:
        """Take a caption file from the request's body."""
        return await control.submit(name, request.stream(), profile, priority)

    @app.get("/jobs/{number}", responses={404: {}})
    async def job(number: int = _JobNumber) -> Any:
        """One job."""
        return await control.job(number) or _refusal(404, f"there is no job {number}")

    @app.get("/jobs/{number}/funnel", responses={404: {}})
    async def job_funnel(number: int = _JobNumber) -> Any:
        """How one job's captions narrowed to samples."""
        if await control.job(number) is None:
            return _refusal(404, f"there is no job {number}")
        return await control.funnel(number)

    @app.get("/funnel")
    async def funnel() -> Funnel:
        """How all captions narrowed to samples."""
        return await control.funnel(None)

    @app.post("/jobs/{number}/{verb}", responses={404: {}, 409: {}})
    async def change(verb: JobVerb, number: int = _JobNumber) -> Any:
        """Pause, resume or cancel a job, or retry its failed items."""
        return await control.change_job(number, verb) or _refusal(404, f"there is no job {number}")

    @app.post("/retry", responses={422: {}})
    async def retry(
        job: int | None = Query(None, ge=1, le=2**63 - 1, description="only captions of it"),
        reason: str | None = Query(None, max_length=200, description="only captions that failed for it"),
    ) -> dict[str, int]:
        """Try failed captions and removals again, of every job where none is named."""
        return {"retried": await control.retry(job, reason)}

    @app.post("/pause")
    async def pause() -> dict[str, bool]:
        """Dispatch nothing more until resumed, across restarts too."""
        await control.set_paused(True)
        return {"paused": True}

    @app.post("/resume")
    async def resume() -> dict[str, bool]:
        """Dispatch again."""
        await control.set_paused(False)
        return {"paused": False}

    @app.get("/items/{number}", responses={404: {}})
    async def explain(number: int = _JobNumber) -> Any:
        """Everything known of one caption."""
        return await control.explain(number) or _refusal(404, f"there is no caption {number}")

    return app


def bind(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, never more open than 0660.

    A socket left behind by a dead daemon is replaced; one that answers, or a path that is no socket, raises
    DaemonError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        pass
    else:
        if not is_socket:
            raise DaemonError(f"{path} exists and is not a socket", hint="remove it or set socket_path")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise DaemonError(f"a daemon already listens on {path}", hint="stop it first")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    old_mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise DaemonError(
            f"cannot listen on {path}: {error}", hint="a socket's path has at most 107 bytes; set socket_path"
        ) from error
    finally:
        os.umask(old_mask)
    listener.listen(128)
    return listener


def inherited(environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The listening Unix socket that a service manager opened for this process (sd_listen_fds(3)); None without one.

    Raises ConfigurationError for several of which none is named `api`, for another kind of socket, and for one that is
    open to others than its owner and group.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(environ.get("LISTEN_FDS", "0"))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    if count > 1 and SOCKET_NAME not in names[:count]:
        raise ConfigurationError(
            f"{count} sockets were passed, none of them named {SOCKET_NAME}",
            hint=f"set FileDescriptorName={SOCKET_NAME} in the socket unit",
        )
    if count < 1:
        return None
    listener = socket.socket(fileno=FIRST_INHERITED + (names.index(SOCKET_NAME) if count > 1 else 0))
    try:
        _refuse_unfit(listener)
    except ConfigurationError:
        listener.close()
        raise
    listener.set_inheritable(False)
    return listener


def _refuse_unfit(listener: socket.socket) -> None:
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    address = listener.getsockname()  # bytes for the abstract namespace, which has no modes
    if not listens or listener.family != socket.AF_UNIX or not isinstance(address, str):
        raise ConfigurationError("the socket passed is no listening Unix socket", hint="set ListenStream=/a/path")
    mode = stat.S_IMODE(Path(address).lstat().st_mode)
    if mode & ~SOCKET_MODE:
        raise ConfigurationError(
            f"{address} has mode {mode:04o}, more than {SOCKET_MODE:04o}",
            hint="set SocketMode=0660 in the socket unit",
        )


@contextmanager
def listening(path: Path, environ: Mapping[str, str] = os.environ) -> Iterator[socket.socket]:
    """The service manager's socket where it passed one, else `bind`'s at `path`; only the latter is removed again."""
    listener = inherited(environ)
    if listener is not None:
        with listener:
            if (found := listener.getsockname()) != str(path):
                _log.warning("the service manager listens on %s; socket_path says %s", found, path)
            yield listener
        return
    with bind(path) as listener:
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the daemon stops it in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer on `listener` until cancelled."""
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2
    )
    await _Server(config).serve(sockets=[listener])
