"""The daemon's API from Python, over its Unix socket; every failure is a DaemonError that says what to do."""

import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx

from imgdiffd.api.unreachable import unreachable
from imgdiffd.errors import DaemonError, RefusedError
from imgdiffd.job import JobChoice
from imgdiffd.status import DeletedJob, Funnel, JobPage, JobView, ProblemPage, ProblemView, Refiltered, Status

if TYPE_CHECKING:
    from imgdiffd.store import PreviewsRow
    from imgdiffd.store.found import ItemPage, Order, SamplePage, Wanted

_CHUNK_BYTES = 1 << 20
_CONNECT_S = 10.0
_AGAIN_S = 0.2  # between two tries while the daemon is busy
PAGE = 1000  # jobs or problems asked for at once
STDIN = "-"


def sendable_name(path: Path) -> str:
    """The name under which a file is sent; "stdin" for a pipe. Raises DaemonError where it is neither."""
    if str(path) == STDIN:
        return "stdin"
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or error
        raise DaemonError(f"{path}: {reason}", hint="name a caption file") from error
    if stat.S_ISFIFO(mode):
        return "stdin"
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise DaemonError(f"{path} is {kind}, not a caption file", hint="name a caption file")
    if path.name != path.name.encode("utf-8", "replace").decode("utf-8"):
        raise DaemonError(f"the name of {path} is not UTF-8", hint="give it another with --name")
    return path.name


def _is_busy(answer: httpx.Response) -> bool:
    """Whether others take all of the daemon's attention at the moment."""
    return answer.status_code == 503 and b'"busy"' in answer.content


def _asked_for(wanted: "Wanted | None", limit: int, after: str | None, order: str) -> dict[str, str | int]:
    """The query of a list of samples or items."""
    asked: dict[str, Any] = {"limit": limit, "order": order, "after": after}
    if wanted is not None:
        columns = ("job", "kind", "profile", "noun", "state", "stage", "reason")
        asked |= {column: getattr(wanted, column) for column in columns}
        for name, bounds in (("min", wanted.least), ("max", wanted.most)):
            asked[name] = ",".join(f"{score}={bound!r}" for score, bound in bounds.items()) or None
    return {name: value for name, value in asked.items() if value is not None}


class Client:
    """A connection to one daemon; use it as a context manager.

    Every method raises RefusedError where the daemon refuses, and DaemonError where it cannot be reached.
    """

    def __init__(self, socket_path: Path, timeout_s: float = 30.0) -> None:
        self._socket_path = socket_path
        self._timeout_s = timeout_s
        self._connected = False
        self._http = httpx.Client(
            # No TLS on a Unix socket: certificates named in the environment need not exist.
            transport=httpx.HTTPTransport(uds=str(socket_path), verify=False, trust_env=False),
            base_url="http://imgdiffd",
            # With a time limit, connecting would fail at once where many wait to be let in.
            timeout=httpx.Timeout(timeout_s, connect=None),
        )

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self._answer(method, path, **options).json()

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        if not self._connected:
            self._refuse_unless_listening()
        try:
            answer = self._asked(method, path, **options)
            until_s = time.monotonic() + _CONNECT_S
            while method == "GET" and _is_busy(answer) and time.monotonic() < until_s:
                time.sleep(_AGAIN_S)
                answer = self._asked(method, path, **options)
            self._connected = True
        except httpx.TimeoutException as error:
            self._connected = False
            hint = "it may be busy or stopped: try again"
            raise DaemonError(f"the daemon at {self._socket_path} did not answer in time", hint=hint) from error
        except httpx.HTTPError as error:
            self._connected = False
            why = str(error) or type(error).__name__
            raise DaemonError(f"the daemon at {self._socket_path} broke off: {why}", hint="try again") from error
        if answer.is_success:
            return answer
        try:
            detail = answer.json().get("detail", answer.text)
        except ValueError:
            detail = answer.text
        raise RefusedError(detail if isinstance(detail, str) else str(detail))

    def _asked(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if method != "GET" or not self._connected:
                raise
        return self._http.request(method, path, **options)  # the daemon had let go of a connection not in use

    def _refuse_unless_listening(self) -> None:
        """Raise DaemonError where nobody listens. httpx would say so too, but leaves a socket open when it fails."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(min(_CONNECT_S, self._timeout_s))
            try:
                probe.connect(str(self._socket_path))
            except OSError as error:
                raise unreachable(self._socket_path, error) from error

    def alive(self) -> bool:
        """Whether a daemon answers at all."""
        try:
            self._call("GET", "/health")
        except DaemonError:
            return False
        return True

    def status(self, job: int | None = None) -> Status:
        """The daemon, its devices, every open job and the newest few that have ended, or only the one named."""
        return Status.model_validate(self._call("GET", "/status", params={} if job is None else {"job": job}))

    def jobs(self, state: JobChoice = "all", *, limit: int = 100, after: int | None = None) -> JobPage:
        """Up to `limit` jobs (1000 at most): the open ones, then those that have ended, newest first.

        `after` is the `next` of the page before.
        """
        options: dict[str, str | int] = {"state": state, "limit": limit}
        if after is not None:
            options["after"] = after
        return JobPage.model_validate(self._call("GET", "/jobs", params=options))

    def every_job(self, state: JobChoice = "all") -> Iterator[JobView]:
        """All jobs in the order of `jobs`, asked for page by page; one that ends meanwhile comes a second time."""
        page = self.jobs(state, limit=PAGE)
        while page.next is not None:
            yield from page.jobs
            page = self.jobs(state, limit=PAGE, after=page.next)
        yield from page.jobs

    def job(self, job: int) -> JobView:
        """One job."""
        return JobView.model_validate(self._call("GET", f"/jobs/{job}"))

    def funnel(self, job: int | None = None) -> Funnel:
        """How captions narrowed to samples, with reasons; of all jobs where none is named."""
        return Funnel.model_validate(self._call("GET", "/funnel" if job is None else f"/jobs/{job}/funnel"))

    def previews(self) -> "list[PreviewsRow]":
        """What previews of half-painted pairs show: a row for each profile, bundle and step."""
        from pydantic import TypeAdapter

        from imgdiffd.store import PreviewsRow

        return TypeAdapter(list[PreviewsRow]).validate_python(self._call("GET", "/previews"))

    def samples(
        self, wanted: "Wanted | None" = None, *, limit: int = 100, after: str | None = None, order: "Order" = "newest"
    ) -> "SamplePage":
        """Up to `limit` samples (1000 at most) of those that are wanted, or fewer: a page ends where it has read much.

        `after` is the `next` of the page before.
        """
        from pydantic import TypeAdapter

        from imgdiffd.store.found import SamplePage

        found = self._call("GET", "/samples", params=_asked_for(wanted, limit, after, order))
        return TypeAdapter(SamplePage).validate_python(found)

    def items(
        self, wanted: "Wanted | None" = None, *, limit: int = 100, after: str | None = None, order: "Order" = "newest"
    ) -> "ItemPage":
        """As `samples`: captions and the object removals of their pairs."""
        from pydantic import TypeAdapter

        from imgdiffd.store.found import ItemPage

        found = self._call("GET", "/items", params=_asked_for(wanted, limit, after, order))
        return TypeAdapter(ItemPage).validate_python(found)

    def image(self, name: str) -> bytes:
        """The bytes of an image that a sample or an item names."""
        return self._answer("GET", f"/images/{quote(name)}").content

    def problems(self, job: int, *, limit: int = 100, after: int = 0) -> ProblemPage:
        """Up to `limit` records (1000 at most) of the job's file that have no usable caption, in the file's order.

        `after` is the `next` of the page before.
        """
        options = {"limit": limit, "after": after}
        return ProblemPage.model_validate(self._call("GET", f"/jobs/{job}/problems", params=options))

    def every_problem(self, job: int) -> Iterator[ProblemView]:
        """All of the job's `problems`, asked for page by page."""
        page = self.problems(job, limit=PAGE)
        while page.next is not None:
            yield from page.problems
            page = self.problems(job, limit=PAGE, after=page.next)
        yield from page.problems

    def submit(
        self,
        path: Path,
        *,
        profile: str | None = None,
        priority: int = 0,
        field: str | None = None,
        name: str | None = None,
    ) -> JobView:
        """Send a caption file or what comes out of a pipe, `-` being the standard input; what is sent stays.

        Returns its job once every caption is in the database. `field` is the key or column with the captions, `name`
        what the file is called instead of its own name, whose ending tells the format.
        """
        options: dict[str, str | int] = {"name": name or sendable_name(path), "priority": priority}
        options |= {key: value for key, value in (("profile", profile), ("field", field)) if value}

        def chunks() -> Iterator[bytes]:
            with open(0 if str(path) == STDIN else path, "rb", closefd=str(path) != STDIN) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

        try:
            answer = self._call("POST", "/jobs", params=options, content=chunks(), timeout=None)
        except OSError as error:
            raise DaemonError(f"{path}: {error.strerror}", hint="name a readable caption file") from error
        return JobView.model_validate(answer)

    def change(self, job: int, verb: str) -> JobView:
        """`pause`, `resume`, `cancel` or `retry` a job, however long that takes: it may have a million captions."""
        return JobView.model_validate(self._call("POST", f"/jobs/{job}/{verb}", timeout=None))

    def change_all(self, verb: str) -> int:
        """`pause`, `resume` or `cancel` every job of which that can be done; returns how many those were."""
        return int(self._call("POST", f"/jobs/{verb}", timeout=None)["changed"])

    def retry(self, job: int | None = None, reason: str | None = None) -> int:
        """Try failed captions and removals again, of one job or reason where given; returns how many."""
        chosen = {"job": job, "reason": reason}
        params = {key: value for key, value in chosen.items() if value is not None}
        answer = self._call("POST", "/retry", params=params, timeout=None)
        return int(answer["retried"])

    def refilter(self, profile: str, *, job: int | None = None, paint: bool = False) -> Refiltered:
        """Bring captions that ended, of one job or all, under another profile, as new jobs; what is stored counts.

        Without `paint`, it is refused where pairs would have to be painted.
        """
        params: dict[str, str | int | bool] = {"profile": profile, "paint": paint}
        if job is not None:
            params["job"] = job
        return Refiltered.model_validate(self._call("POST", "/refilter", params=params, timeout=None))

    def failures(self, job: int | None = None) -> dict[str, int]:
        """How many captions and removals `retry` would try again, by reason, of one job or all."""
        found: dict[str, int] = self._call("GET", "/failures", params={} if job is None else {"job": job})
        return found

    def set_paused(self, paused: bool) -> None:
        """Dispatch nothing until resumed, across restarts too; or go on."""
        self._call("POST", "/pause" if paused else "/resume")

    def explain(self, item: int) -> dict[str, Any]:
        """Everything known of one caption: attempts, scores, regions, samples."""
        story: dict[str, Any] = self._call("GET", f"/items/{item}")
        return story

    def delete(self, job: int, *, dry_run: bool = False) -> DeletedJob:
        """Delete an ended job with its rows and images, or only say what that would be."""
        answer = self._call("DELETE", f"/jobs/{job}", params={"dry_run": dry_run}, timeout=None)
        return DeletedJob.model_validate(answer)

    def prune(self, older_than_s: float, *, dry_run: bool = False) -> list[DeletedJob]:
        """Delete every job that ended longer ago and of which nothing waits, or only say which these are."""
        chosen = {"older_than_s": older_than_s, "dry_run": dry_run}
        return [DeletedJob.model_validate(job) for job in self._call("POST", "/prune", params=chosen, timeout=None)]
