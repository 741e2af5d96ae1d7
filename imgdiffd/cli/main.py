"""The `imgdiffd` command: arguments in, one function called, errors as one line and an exit status.

It owns the words a user types; it does not know how anything is done, and imports it only when it is asked for.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from imgdiffd import __version__
from imgdiffd.cli import export as cli_export
from imgdiffd.cli.models import add_models, spelled_out
from imgdiffd.errors import DaemonError, ImgdiffdError
from imgdiffd.settings import Settings, documented, load_settings

_Command = Callable[[argparse.Namespace], None]


def _settings(arguments: argparse.Namespace) -> Settings:
    return load_settings(arguments.config)


def _log_to_stderr(settings: Settings) -> None:
    from imgdiffd.daemon.notify import JournalFormatter, in_journal

    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if in_journal(sys.stderr):
        logging.getLogger().handlers[0].setFormatter(JournalFormatter())
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _serve(arguments: argparse.Namespace) -> None:
    settings = _settings(arguments)  # first: wrong ones are told before anything big is loaded
    _log_to_stderr(settings)
    import anyio

    from imgdiffd.daemon.serve import serve

    anyio.run(lambda: serve(settings, reread=lambda: _settings(arguments)), backend_options={"use_uvloop": True})


def _demo(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from imgdiffd.cli.demo import run_demo

    run_demo(arguments.folder, arguments.captions, Console(), removal=arguments.removal)


def _submit(arguments: argparse.Namespace) -> None:
    from imgdiffd.api.client import Client

    profile = arguments.profile
    if profile is not None and ("/" in profile or profile.endswith(".toml")):
        profile = str(Path(profile).expanduser().absolute())  # the daemon reads it, and stands elsewhere
    with Client(_settings(arguments).socket_path) as client:
        for path in arguments.files:
            job = client.submit(path, profile=profile, priority=arguments.priority)
            if job.duplicate_of is not None:
                print(f"{path}: the same content as job {job.duplicate_of}; nothing to do")
            else:
                counts = f"{job.captions} captions, {job.duplicates} duplicates, {job.problems} unreadable"
                print(f"{path}: job {job.id}, {counts}")


def _status(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from imgdiffd.api.client import Client
    from imgdiffd.cli.terminal import Rates, status_view

    with Client(_settings(arguments).socket_path) as client:
        status = client.status()
    if arguments.json:
        print(status.model_dump_json(indent=2))
    else:
        Console().print(status_view(status, Rates(), arguments.job))


def _watch(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from imgdiffd.api.client import Client
    from imgdiffd.cli.terminal import follow
    from imgdiffd.job import TERMINAL_JOB_STATES
    from imgdiffd.status import Status

    def finished(status: Status) -> bool:
        jobs = [job for job in status.jobs if arguments.job in {None, job.id}]
        if arguments.job is not None and not jobs:
            raise DaemonError(f"there is no job {arguments.job}", hint="`imgdiffd status` lists them")
        return bool(jobs) and all(job.state in TERMINAL_JOB_STATES for job in jobs)

    with Client(_settings(arguments).socket_path) as client:
        follow(client.status, finished, Console(), arguments.job)


def _change(arguments: argparse.Namespace) -> None:
    from imgdiffd.api.client import Client

    with Client(_settings(arguments).socket_path) as client:
        if arguments.job is not None:
            print(f"job {arguments.job} is {client.change(arguments.job, arguments.command).state}")
            return
        client.set_paused(arguments.command == "pause")
    print("nothing is started until `imgdiffd resume`" if arguments.command == "pause" else "work goes on")


def _retry(arguments: argparse.Namespace) -> None:
    from imgdiffd.api.client import Client

    with Client(_settings(arguments).socket_path) as client:
        print(f"{client.retry(arguments.job, arguments.reason)} captions and removals are tried again")


def _funnel(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from imgdiffd.api.client import Client
    from imgdiffd.cli.terminal import funnel_table

    with Client(_settings(arguments).socket_path) as client:
        Console().print(funnel_table(client.funnel(arguments.job)))


def _explain(arguments: argparse.Namespace) -> None:
    from imgdiffd.api.client import Client

    with Client(_settings(arguments).socket_path) as client:
        print(json.dumps(client.explain(arguments.item), indent=2, ensure_ascii=False))


def _check(arguments: argparse.Namespace) -> None:
    settings = _settings(arguments)  # first: what is wrong with them is told within a second

    from imgdiffd.bundles.bundle import load_bundle
    from imgdiffd.bundles.compatibility import check_agreement
    from imgdiffd.errors import BundleError
    from imgdiffd.hub import problems
    from imgdiffd.method.profile import load_profile

    bundle = load_bundle(settings.bundle)
    found = problems(bundle)
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        raise BundleError(f"bundle {bundle.name} cannot be used", hint="mend what is listed above")
    profile = load_profile(settings.profile or bundle.profile)
    check_agreement(profile, bundle)
    print(f"settings, bundle {bundle.name} and profile {profile.name} are in order")


def _show_settings(arguments: argparse.Namespace) -> None:
    current = _settings(arguments)
    for key, variable, default, meaning in documented():
        print(f"{key} = {getattr(current, key)!s}\n    {meaning}; default {default}; ${variable}")


def _show_profile(arguments: argparse.Namespace) -> None:
    from imgdiffd.method.profile import load_profile

    print(load_profile(arguments.name).model_dump_json(indent=2))


def _evaluate(arguments: argparse.Namespace) -> None:
    from imgdiffd.mini.evaluate import evaluate

    if not evaluate(arguments.captions, arguments.seed):
        sys.exit(1)


def _calibrate(arguments: argparse.Namespace) -> None:
    from imgdiffd.mini.calibrate import calibrate

    calibrate(arguments.captions, arguments.seed)


def _simulate(arguments: argparse.Namespace) -> None:
    from imgdiffd.schedulers.simulation.command import Options, simulate

    chosen = {key: value for key, value in vars(arguments).items() if key in Options.__dataclass_fields__}
    simulate(Options(**chosen), print)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def build_parser() -> argparse.ArgumentParser:
    """Every command with its arguments."""
    parser = argparse.ArgumentParser(
        prog="imgdiffd", description="Caption files in, an image-difference dataset out (Img-Diff, arXiv 2408.04594)."
    )
    parser.add_argument("--version", action="version", version=f"imgdiffd {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: _Command, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(run=run)
        return added

    demo = command("demo", _demo, "run the whole pipeline on the miniature bundle and leave a dataset in a folder")
    demo.add_argument("--folder", type=Path, default=Path("demo"), help="where everything goes (default: demo)")
    demo.add_argument("--captions", type=Path, help="your own caption file instead of the built-in one")
    demo.add_argument("--removal", action="store_true", help="object removal too, which takes half as long again")
    command("serve", _serve, "run the daemon in the foreground")
    submit = command("submit", _submit, "send caption files to the daemon")
    submit.add_argument("files", nargs="+", type=Path)
    submit.add_argument("--profile", help="a profile's name or file; the daemon's own where none is given")
    submit.add_argument("--priority", type=int, default=0, help="higher goes first, below 0 is background (default: 0)")
    status = command("status", _status, "show devices, jobs and progress once")
    status.add_argument("--json", action="store_true", help="as JSON, for programs")
    watch = command("watch", _watch, "show progress live until the jobs are done")
    for added in (status, watch):
        added.add_argument("job", nargs="?", type=_positive, help="only this job")
    command("cancel", _change, "end a job, or what is left of its removals; what is done stays").add_argument(
        "job", type=_positive
    )
    pausing = command("pause", _change, "keep captions from the devices until resumed, across restarts too")
    for added in (pausing, command("resume", _change, "let what was paused go on")):
        added.add_argument("job", nargs="?", type=_positive, help="all work where none is named")
    retry = command("retry", _retry, "try failed captions and removals again")
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("job", nargs="?", type=_positive, help="those of this job")
    which.add_argument("--failed", action="store_true", help="those of every job")
    retry.add_argument("--reason", help="only those that failed for it, such as broke_generate")
    funnel = command("funnel", _funnel, "how captions narrowed to samples, with the reasons")
    funnel.add_argument("job", nargs="?", type=_positive)
    command("explain", _explain, "everything known of one caption").add_argument("item", type=_positive)
    export = command("export", cli_export.run, "write the dataset, with or without a running daemon")
    cli_export.add_arguments(export)
    export.add_argument("--job", type=_positive, help="only this job")
    command("check", _check, "check settings, bundle and profile without starting anything")
    add_models(commands)
    command("settings", _show_settings, "list every setting, its value and meaning")
    command("profile", _show_profile, "print a profile's numbers").add_argument("name", nargs="?", default="default")
    simulated = command("simulate", _simulate, "plan ahead: hours and utilisation of a run on devices you may not have")
    simulated.add_argument("--captions", type=_positive, default=118_000, help="default: the paper's 118,000")
    simulated.add_argument("--devices", type=_positive, default=4, help="default: 4")
    simulated.add_argument(
        "--placement", choices=("equal", "mixed"), default="equal", help="mixed: only half of the cards caption"
    )
    simulated.add_argument("--slow-card", type=float, default=1.0, metavar="SHARE", help="speed of the last card")
    simulated.add_argument(
        "--failure-rate", type=float, default=0.0, metavar="SHARE", help="of batches, killing workers"
    )
    simulated.add_argument("--costs", type=Path, metavar="FILE", help="a cost table as JSON (default: an A100's)")
    simulated.add_argument("--seed", type=int, default=1, help="another draw of what captions come to (default: 1)")
    simulated.add_argument(
        "--out", type=Path, default=Path("simulation"), help="where the charts go (default: simulation)"
    )
    mini = commands.add_parser("mini", help="measure the miniature bundle, or derive its profile")
    tasks = mini.add_subparsers(dest="task", required=True, metavar="TASK")
    for name, run, captions, summary in (
        ("evaluate", _evaluate, 200, "measure every promise of the miniature bundle"),
        ("calibrate", _calibrate, 160, "derive the thresholds of the profile `mini`"),
    ):
        task = tasks.add_parser(name, help=summary, description=summary)
        task.set_defaults(run=run)
        task.add_argument(
            "--captions", type=_positive, default=captions, help=f"held-out captions (default: {captions})"
        )
        task.add_argument("--seed", type=int, default=1, help="another draw of them (default: 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exits 0, 1 for failures, 2 for wrong arguments, 78 for wrong configuration, 130 after Ctrl-C."""
    arguments = build_parser().parse_args(spelled_out(sys.argv[1:] if argv is None else argv))
    try:
        arguments.run(arguments)
    except ImgdiffdError as error:
        print(f"imgdiffd: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush does not raise again
        sys.exit(141)
