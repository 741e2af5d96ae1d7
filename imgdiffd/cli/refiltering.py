"""`imgdiffd refilter` without --dry-run: finished captions come under another profile, and only missing work waits."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from imgdiffd.cli.parameters import settings_of
from imgdiffd.cli.usage import PROGRAM

if TYPE_CHECKING:
    from imgdiffd.settings import Settings
    from imgdiffd.status import Refiltered


def bring_under(context: typer.Context, profile: str, job: int | None, *, paint: bool, as_json: bool) -> None:
    """Have the daemon do it or, where none runs, do it on the database; print what became of the captions."""
    from imgdiffd.cli.parameters import listens

    if "/" in profile or profile.endswith(".toml"):
        profile = str(Path(profile).expanduser().absolute())  # the daemon reads it, and stands elsewhere
    settings = settings_of(context)
    if online := listens(settings.socket_path):
        from imgdiffd.api.client import Client

        with Client(settings.socket_path) as client:
            done = client.refilter(profile, job=job, paint=paint)
    else:
        done = _without_daemon(settings, profile, job, paint)
    if as_json:
        print(done.model_dump_json(indent=2))
    else:
        _tell(done)
    if done.waiting and not online:
        print(f"{PROGRAM}: no daemon runs; the next one does what waits", file=sys.stderr)


def _without_daemon(settings: "Settings", profile: str, job: int | None, paint: bool) -> "Refiltered":
    import anyio

    from imgdiffd.daemon.refiltering import refilter_without_daemon
    from imgdiffd.method.profile import load_profile

    chosen = load_profile(profile)
    return anyio.run(lambda: refilter_without_daemon(settings, chosen, job, paint=paint))


def _tell(done: "Refiltered") -> None:
    from imgdiffd.errors import counted, visible

    if not done.captions:
        print("nothing to do: every caption that has ended is under this profile already")
        return
    waiting = ", ".join(f"{number} for {stage}" for stage, number in done.waiting.items())
    waits = f"{sum(done.waiting.values())} wait: {waiting}" if waiting else "nothing waits"
    print(f"{counted(done.captions, 'caption')}: {done.sampled} sampled and {done.rejected} rejected at once; {waits}")
    for each in done.jobs:
        captions, samples = counted(each.captions, "caption"), counted(each.samples, "sample")
        print(visible(f"job {each.job}: {captions} of job {each.of} ({each.name}), {samples} so far"))
