"""`imgdiffd explain`: the story of one caption, for people or as JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgdiffd.cli.parameters import positive

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_BOXES = 12  # shown at most, since a pair can have hundreds
_STYLES = {"sampled": "green", "rejected": "yellow", "failed": "red", "cancelled": "yellow"}

_Part = Mapping[str, Any]


def explain(
    context: typer.Context,
    item: Annotated[int, typer.Argument(metavar="ITEM", parser=positive, help="The caption's number.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show everything that is known about one caption.

    The caption comes first, then the edited one and what became of them, then every attempt with its texts, scores and
    boxes, and the reason why it was kept or dropped. --json has the profile and every seed too.
    """
    from imgdiffd.cli.offline import answers_of

    with answers_of(context) as answers:
        story = answers.explain(item)
    if as_json:
        print(json.dumps(story, indent=2, ensure_ascii=False))
        return
    from imgdiffd.cli.terminal import wide_console

    console = wide_console()
    for part in story_parts(story):
        console.print(part)


def story_parts(story: _Part) -> "Iterator[RenderableType]":
    """What `explain` prints for people, from what the API answers."""
    from imgdiffd.cli.terminal import plain

    pair, job, removal = story["pair"] or {}, story["job"], story["removal"]
    if story["profile"] is None:
        yield plain("imported: its captions, seeds and scores are not known", "bold")
    else:
        yield plain(story["caption"], "bold")
        yield plain(f"→ {pair['caption2']}", "bold") if pair else plain("not rewritten", "dim")
    count = len(story["samples"])
    came = f"{count} sample{'s' if count > 1 else ''}" if count else ""
    yield plain(_ending(story, came), _STYLES.get(story["state"], ""))
    origin = f" ({story['source_id']})" if story["source_id"] else ""
    yield plain(
        f"caption {story['item']}, line {story['line']}{origin} of job {job['id']} {job['name']}, "
        f"profile {_profile_of(story)}",
        "dim",
    )
    for role, chosen in story["sampling"].items():
        yield plain(f"{role}: {', '.join(f'{name} {value:g}' for name, value in chosen.items())}", "dim")
    yield from _tables(story, pair)
    if removal:
        yield plain("")
        yield plain(f"object removal: {_ending(removal, '')}", "bold")
        yield from _removal_tables(removal)
    for name, reason in story["pictures_gone"].items():
        yield plain(f"{name}: {reason}", "dim")


def _profile_of(story: _Part) -> str:
    """The name of the profile that the caption was worked on under; of an imported one nothing more is known."""
    return str(story["profile"]["name"]) if story["profile"] else "imported"


def _ending(part: _Part, otherwise: str) -> str:
    """Where an item ended or waits, and why."""
    where = f"{'waits for' if part['state'] == 'ready' else part['state'] + ' in'} {part['stage']}"
    ending = ": ".join(filter(None, (where, _why(part) or otherwise)))
    return f"{ending}; it killed {part['crashes']} workers" if part["crashes"] else ending


def _tables(story: _Part, pair: _Part) -> "Iterator[Group]":
    if story["rewrites"]:
        attempts = [(each["attempt"], _answer(each), _verdict(each)) for each in story["rewrites"]]
        yield _table("rewriting", ("attempt", "answer", "verdict"), attempts)
    if pair.get("image1") or pair.get("scores"):
        judge = f"the judge: {pair['answer']}" if pair["answer"] else ""
        scores = "\n".join(filter(None, (_scores(pair["scores"]), judge)))
        images = f"{pair['image1']}\n{pair['image2']}" if pair["image1"] else "given up half-painted"
        yield _table("pair", ("images", "nouns", "scores"), [(images, _nouns(pair), scores)])
    if story["candidates"]:
        yield _boxes("boxes", story["candidates"])
    if story["regions"]:
        left = {sample["region"]: f"\nleft: image {sample['left']}" for sample in story["samples"]}
        regions = [
            (
                f"{each['number']}{_found_in(each)}\n{_box(each)}{left.get(each['number'], '')}",
                *(each[key] for key in ("text1", "text2", "difference")),
                _scores(each["scores"]),
                _verdict(each) + _shared(story, each["number"]),
            )
            for each in story["regions"]
        ]
        yield _table("regions", ("region", "text 1", "text 2", "difference", "scores", "verdict"), regions)


def _shared(story: _Part, region: int) -> str:
    """The other profiles under which a region is a sample."""
    others = [name for name in story["profiles"].get(str(region), ()) if name != _profile_of(story)]
    return f"\na sample under {', '.join(others)} too" if others else ""


def _removal_tables(removal: _Part) -> "Iterator[Group]":
    if removal["found"]:
        yield _boxes("boxes", removal["found"])
    if removal["erasures"]:
        rows = [
            (
                f"{each['erasure']['index']}, image {each['erasure']['image']}\n{_box(each['erasure'])}",
                each["text"],
                _scores(each["scores"]),
                _verdict(each),
            )
            for each in removal["erasures"]
        ]
        yield _table("objects erased", ("object", "text", "scores", "verdict"), rows)


def _boxes(title: str, boxes: Sequence[_Part]) -> "Group":
    """Those that were kept first."""
    shown = sorted(boxes, key=lambda each: bool(each["reason"]))[:_BOXES]
    more = f", {len(shown)} of them here and all with --json" if len(boxes) > len(shown) else ""
    kept = sum(not each["reason"] for each in boxes)
    rows = [(each["image"], _box(each), _scores(each["scores"]), _verdict(each)) for each in shown]
    return _table(f"{title}: {len(boxes)}, kept {kept}{more}", ("image", "box", "scores", "verdict"), rows)


def _table(title: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> "Group":
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    from imgdiffd.cli.terminal import plain
    from imgdiffd.errors import visible

    heads = [Column(name, overflow="fold") for name in columns]
    table = Table(*heads, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*(Text("\n".join(map(visible, str(cell).split("\n")))) for cell in row))
    return Group("", plain(title, "bold"), table)


def _answer(rewrite: _Part) -> str:
    if rewrite["answer"] is None:
        return "not asked"
    return f"{' '.join(rewrite['answer'].split())}{' …' if rewrite['truncated'] else ''}"


def _nouns(pair: _Part) -> str:
    return f"{', '.join(pair['nouns1']) or 'none'} → {', '.join(pair['nouns2']) or 'none'}"


def _verdict(part: _Part) -> str:
    return _why(part) or "kept"


def _why(part: _Part) -> str:
    return ": ".join(filter(None, (part["reason"], part["detail"])))


def _scores(scores: Mapping[str, float]) -> str:
    return "\n".join(f"{name} {value:.4f}" for name, value in scores.items())


def _found_in(region: _Part) -> str:
    """The image in which it was found; 0 of an imported one, of which that is not known."""
    return f", image {region['image']}" if region["image"] else ""


def _box(part: _Part) -> str:
    return " ".join(map(str, part["box"]))
