"""`imgdiffd rewrite`: captions in, pairs of captions out, without painting."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from imgdiffd.bundles.sharing import LEXICON
from imgdiffd.cli.parameters import bundle_names, positive, profile_names, settings_of, some
from imgdiffd.errors import ExportError, InputError, counted, reason_of

if TYPE_CHECKING:
    from imgdiffd.job import CaptionRecord
    from imgdiffd.method.messages import RewriteInput, RewriteOutput
    from imgdiffd.method.pairs import PairCounts
    from imgdiffd.method.profile import Profile

    Ask = Callable[[Sequence[RewriteInput]], Sequence[RewriteOutput]]

_BATCH = 64  # captions


def rewrite(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A caption file in any format that the daemon reads.")],
    bundle: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE",
            parser=some,
            autocompletion=lambda: [LEXICON, *bundle_names()],
            help="Whose rewriter is asked: a bundle's name, folder or .toml file, or lexicon for the one without a "
            "model. The settings' bundle where none is given.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            parser=some,
            autocompletion=profile_names,
            help="A profile's name or .toml file: prompt, sampling, seed. The bundle's own where none is given.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", parser=positive, help="Rewrite each caption N times, with other seeds.")
    ] = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the pairs there, as JSON Lines.")] = None,
    field: Annotated[
        str | None, typer.Option(metavar="NAME", parser=some, help="The key or column with the captions.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Replace one object in each caption, without painting.

    It prints the share of captions in which an object was replaced, the objects' categories, and examples. The seeds
    are those of the daemon: the first round gives its first attempts.
    """
    from imgdiffd.method.pairs import PairCounts

    ask, chosen = _rewriter(context, bundle, profile)
    counts, begun = PairCounts(), time.monotonic()
    pairs = _pairs(_captions(file, field or "", counts), ask, chosen, rounds, counts)
    if out is None:
        for _ in pairs:
            pass
    else:
        _write(out, pairs)
    seconds = time.monotonic() - begun
    if as_json:
        print(
            json.dumps(
                {**counts.as_json(), "rounds": rounds, "seconds": round(seconds, 3)}, ensure_ascii=False, indent=2
            )
        )
    else:
        _show(counts, rounds, seconds, out)


def _captions(file: Path, field: str, counts: "PairCounts") -> Iterator["CaptionRecord"]:
    """The captions of the file, each once. Raises InputError."""
    from imgdiffd.captions import read_open
    from imgdiffd.job import CaptionRecord

    seen: set[int] = set()
    try:
        with file.open("rb") as opened:
            for entry in read_open(opened, file.name, field):
                if not isinstance(entry, CaptionRecord):
                    counts.unreadable += 1
                elif (key := hash(entry.text)) not in seen:
                    seen.add(key)
                    yield entry
    except InputError as error:
        raise InputError(f"{file}: {error.message}", code=error.code, hint=error.hint) from error
    except OSError as error:
        hint = "name a caption file that you may read"
        raise InputError(f"{file}: cannot be read: {reason_of(error)}", code="unreadable", hint=hint) from error


def _rewriter(context: typer.Context, bundle: str | None, profile: str | None) -> tuple["Ask", "Profile"]:
    """What answers, and the profile by which it is asked."""
    from imgdiffd.bundles.bundle import load_bundle
    from imgdiffd.method.profile import load_profile

    if bundle == LEXICON:
        chosen = load_profile(profile or "default")
        return _lexicon(chosen), chosen
    asked = load_bundle(bundle or settings_of(context).bundle)
    chosen = load_profile(profile or asked.profile)
    if asked.rewriter.is_lexicon:
        return _lexicon(chosen), chosen

    import torch

    from imgdiffd.models.loading import load_models
    from imgdiffd.pipeline import Role
    from imgdiffd.stages.images import Images
    from imgdiffd.stages.rewrite import rewrite

    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    models = load_models(asked, [Role.REWRITER], device, lambda line: print(line, file=sys.stderr), compile=False)
    images = Images(Path(), device)  # which this stage neither reads nor writes
    return lambda inputs: rewrite(models, chosen, inputs, images), chosen


def _lexicon(profile: "Profile") -> "Ask":
    from imgdiffd.method.lexicon import replace_object
    from imgdiffd.method.messages import RewriteOutput
    from imgdiffd.pipeline import Stage, seed_of

    def answer(each: "RewriteInput") -> RewriteOutput:
        seed = seed_of(profile.seed, each.caption, each.attempt, Stage.REWRITE)
        made = replace_object(each.caption, seed, profile.rewrite)
        return RewriteOutput(each.item, made.caption if made else each.caption, False, 0, 0, seed)

    return lambda inputs: [answer(each) for each in inputs]


def _pairs(
    captions: Iterator["CaptionRecord"], ask: "Ask", profile: "Profile", rounds: int, counts: "PairCounts"
) -> Iterator[dict[str, Any]]:
    """A record for each pair, once it is counted."""
    from imgdiffd.method.messages import RewriteInput

    with _progress() as progress:
        while batch := list(islice(captions, _BATCH)):
            inputs = [RewriteInput(0, each.text, number) for each in batch for number in range(1, rounds + 1)]
            outputs = list(ask(inputs))
            for place, each in enumerate(batch):
                answers = outputs[place * rounds : (place + 1) * rounds]
                for pair in counts.take(each.text, answers, profile.rewrite):
                    yield {"id": each.source_id, "line": each.line, **asdict(pair)}
            progress(counts.captions)


def _write(out: Path, pairs: Iterator[dict[str, Any]]) -> None:
    from imgdiffd import durable

    def content(file: BinaryIO) -> None:
        for pair in pairs:
            file.write(json.dumps(pair, ensure_ascii=False).encode() + b"\n")

    try:
        durable.write({out: content})
    except OSError as error:
        hint = "name a file that you may write, in a folder that is there"
        raise ExportError(f"{out}: cannot be written: {reason_of(error)}", hint=hint) from error


@contextmanager
def _progress() -> Iterator[Callable[[int], object]]:
    """How many captions are rewritten, while a person waits."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} captions rewritten"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda count: bar.update(task, completed=count)


def _show(counts: "PairCounts", rounds: int, seconds: float, out: Path | None) -> None:
    from imgdiffd.cli.terminal import plain, wide_console

    console = wide_console()
    share = 100 * counts.replaced / max(1, counts.captions)
    where = f" in {out}" if out else ""
    told = f"{counted(counts.captions, 'caption')}, an object replaced in {counts.replaced} ({share:.1f} %)"
    console.print(plain(f"{told}: {counted(counts.pairs, 'pair')}{where}, {seconds:.1f} s", "bold"))
    if counts.unreadable:
        console.print(plain(f"{counted(counts.unreadable, 'record')} without a usable caption", "yellow"))
    for title, counter in (("replaced objects", counts.categories), ("answers refused", counts.refused)):
        if counter:
            listed = ", ".join(f"{name} {number:,}" for name, number in counter.most_common())
            console.print(plain(f"{title}: {listed}"))
    for pair in counts.examples:
        console.print(plain(f"{', '.join(pair.nouns1) or '–'} → {', '.join(pair.nouns2) or '–'}", "bold"))
        console.print(plain(f"  {pair.caption1}"))
        console.print(plain(f"  {pair.caption2}"))
