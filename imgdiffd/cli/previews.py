"""`imgdiffd previews`: what previews of half-painted pairs show, and what early abort saves."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imgdiffd.method.calibration import Calibration, Side
    from imgdiffd.store import PreviewsRow


def previews(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show the thresholds of early abort, and what it saves.

    They come from pairs that were painted to the end whatever their preview said, for each profile, bundle and step of
    the preview. A job takes those in force when it is admitted, if its profile has generate.abort.mode = "on".
    """
    from imgdiffd.cli.offline import answers_of

    with answers_of(context) as answers:
        rows = answers.previews()
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    from imgdiffd.cli.terminal import plain, wide_console

    console = wide_console()
    if not rows:
        console.print('no pair has a preview yet; profiles with generate.abort.mode = "shadow" make them')
    for row in rows:
        first, *others = _lines(row)
        console.print(plain(first, "bold"))
        for line in others:
            console.print(plain(f"  {line}"))


def _lines(row: "PreviewsRow") -> Iterator[str]:
    found = row.calibration
    yield f"profile {row.profile}, bundle {row.bundle}, previews after {_percent(row.at)} of the steps"
    yield f"{found.pairs:,} pairs painted to the end whatever their preview said; their gate kept {found.kept:,}"
    yield f"too different: {_side(found.below, found, row.loss, 'under')}"
    yield f"too similar: {_side(found.above, found, row.loss, 'over')}"
    if not found.given_up:
        yield 'mode "on" gives up nothing yet'
        return
    of_failing = found.given_up * found.pairs / max(1, found.pairs - found.kept)
    given_up, caught, saved = (_percent(share) for share in (found.given_up, of_failing, row.saved))
    yield f'mode "on" gives up {given_up} of the pairs, {caught} of those that fail: {saved} less to paint'


def _side(side: "Side", found: "Calibration", loss: float, where: str) -> str:
    from imgdiffd.method.calibration import upper_bound

    if not side.fitted:
        lacking = f"no threshold before {found.needed - side.kept:,} more kept pairs"
        return f"withdrawn, since kept pairs have drifted beyond it: {lacking}" if side.drifts else lacking
    if side.threshold is None:
        return f"no threshold, since it would give up only {_percent(side.given_up)} of the pairs"
    bound = _percent(upper_bound(side.lost, side.fitted), 2)
    return (
        f"pairs {where} {side.threshold:.4f}, {_percent(side.given_up)} of all; {side.lost} of {side.fitted:,}"
        f" kept ones are lost, at most {bound} with 95 % certainty (allowed: {_percent(loss, 2)})"
    )


def _percent(share: float, decimals: int = 1) -> str:
    return f"{100 * share:.{decimals}f} %"
