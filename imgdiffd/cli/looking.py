"""The commands that list samples and items by what they are."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from imgdiffd.cli.parameters import CONFIG, positive, some
from imgdiffd.cli.usage import PROGRAM, UsageError
from imgdiffd.errors import InputError, visible
from imgdiffd.job import ItemState
from imgdiffd.pipeline import Pipeline, Stage

if TYPE_CHECKING:
    from rich.console import RenderableType

    from imgdiffd.store.found import ItemPage, SamplePage, Wanted

_Page = TypeVar("_Page", "SamplePage", "ItemPage")

_Job = Annotated[int | None, typer.Option("--job", metavar="JOB", parser=positive, help="Only of this job.")]
_Kind = Annotated[Pipeline | None, typer.Option(help="Only of this kind.")]
_Profile = Annotated[
    str | None, typer.Option(metavar="NAME", parser=some, help="Only of the profile of this name or number.")
]
_Noun = Annotated[
    str | None,
    typer.Option(
        metavar="WORD", parser=some, help="Only where one caption of the pair has this noun, and not the other."
    ),
]
_Min = Annotated[
    list[str] | None,
    typer.Option("--min", metavar="NAME=V", help="Only with this score or a higher one, as in clip_text_cosine=0.5."),
]
_Max = Annotated[list[str] | None, typer.Option("--max", metavar="NAME=V", help="Only with this score or a lower one.")]
_Order = Annotated[Literal["newest", "oldest"], typer.Option(help="Which come first.")]
_Limit = Annotated[int, typer.Option(metavar="N", parser=positive, help="At most so many.")]
_After = Annotated[str | None, typer.Option(metavar="PLACE", parser=some, help="Where the list before this one ended.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def samples(
    context: typer.Context,
    job: _Job = None,
    kind: _Kind = None,
    profile: _Profile = None,
    noun: _Noun = None,
    least: _Min = None,
    most: _Max = None,
    order: _Order = "newest",
    limit: _Limit = 20,
    after: _After = None,
    as_json: _AsJson = False,
) -> None:
    """List samples of both kinds, in the order in which they were made.

    --min and --max may be given several times. A score of the whole pair has pair. in front of its name. A sample that
    does not have the score is left out.
    """
    from pydantic import TypeAdapter

    from imgdiffd.cli.listings import samples_table
    from imgdiffd.cli.offline import answers_of
    from imgdiffd.store.found import SamplePage

    wanted = _wanted(context, job=job, kind=kind, profile=profile, noun=noun, least=least, most=most)
    with answers_of(context) as answers:
        page = _gathered(
            lambda count, place: answers.samples(wanted, limit=count, after=place, order=order), limit, after
        )
    if as_json:
        print(TypeAdapter(SamplePage).dump_json(page, indent=2).decode())
    else:
        _show(samples_table(page.samples, wanted), page, context)


def items(
    context: typer.Context,
    job: _Job = None,
    kind: _Kind = None,
    profile: _Profile = None,
    state: Annotated[ItemState | None, typer.Option(help="Only in this state.")] = None,
    stage: Annotated[
        Stage | None,
        # Typer would list the stages on one line of 93 columns.
        typer.Option(metavar="STAGE", help=f"Only what waits in this stage or ended there: {', '.join(Stage)}."),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="REASON", parser=some, help="Only what ended for it, such as no_region.")
    ] = None,
    noun: _Noun = None,
    least: _Min = None,
    most: _Max = None,
    order: _Order = "newest",
    limit: _Limit = 20,
    after: _After = None,
    as_json: _AsJson = False,
) -> None:
    """List captions, and the object removals of their pairs, in the order of the captions.

    --min and --max may be given several times: the pair's score must lie within them, whose name begins with pair., and
    the scores of at least one of its regions or erased objects.
    """
    from pydantic import TypeAdapter

    from imgdiffd.cli.listings import items_table
    from imgdiffd.cli.offline import answers_of
    from imgdiffd.store.found import ItemPage

    wanted = _wanted(context, job=job, kind=kind, profile=profile, noun=noun, least=least, most=most)
    wanted = replace(wanted, state=state, stage=stage, reason=reason)
    with answers_of(context) as answers:
        page = _gathered(
            lambda count, place: answers.items(wanted, limit=count, after=place, order=order), limit, after
        )
    if as_json:
        print(TypeAdapter(ItemPage).dump_json(page, indent=2).decode())
    else:
        _show(items_table(page.items, wanted), page, context)


def _wanted(context: typer.Context, *, least: list[str] | None, most: list[str] | None, **chosen: Any) -> "Wanted":
    from imgdiffd.method.score_names import bounds_of
    from imgdiffd.store.found import Wanted

    bounds = {}
    for option, texts in (("--min", least), ("--max", most)):
        try:
            bounds[option] = bounds_of(texts or ())
        except InputError as error:
            raise UsageError(f"{option}: {error}", context) from error
    return Wanted(**chosen, least=bounds["--min"], most=bounds["--max"])


def _gathered(ask: "Callable[[int, str | None], _Page]", limit: int, after: str | None) -> "_Page":
    """The first `limit` of a list, asked for page by page."""
    from imgdiffd.api.client import PAGE

    page = ask(min(limit, PAGE), after)
    while page.next is not None and len(page) < limit:
        page = page.joined(ask(min(limit - len(page), PAGE), page.next))
    return page


def _show(table: "RenderableType", page: "SamplePage | ItemPage", context: typer.Context) -> None:
    """The table, how much more there is, and how to see one whole."""
    from imgdiffd.cli.terminal import wide_console

    if not len(page):
        print("none" if page.read == 0 else f"none of {page.read:,} looked at")
        return
    wide_console().print(table)
    if page.next is not None:
        so_far = (
            f"{len(page):,} of {page.total:,}" if page.total is not None else f"{len(page):,}, {page.read:,} looked at"
        )
        print(f"{so_far}; `{_again(context)} --after={page.next}` goes on")
    print(f"`{PROGRAM} explain ITEM` tells the story of one")


def _again(context: typer.Context) -> str:
    """The command as it was typed, without the place where it began."""
    words = [PROGRAM, str(context.info_name)]
    for param in context.command.params:
        value = context.params.get(param.name or "")
        given = value not in (None, False, param.default) and param.name not in ("after", "as_json")
        for each in (value if isinstance(value, list | tuple) else [value]) if given else ():
            words += [param.opts[0], str(each)]
    if (config := context.meta.get(CONFIG)) is not None:
        words += ["--config", str(config)]
    return visible(shlex.join(words))
