"""Statistics as one HTML page that needs nothing else: no network, no script, no other file."""

from collections.abc import Iterable, Sequence
from html import escape

from imgdiffd.errors import visible
from imgdiffd.statistics.report import Histogram, KindStatistics, Statistics
from imgdiffd.statistics.wording import diversity_rows, notes, number, share, word_row
from imgdiffd.status import Funnel

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1a; --faint: #6b6a64; --paper: #fbfaf7; --line: #e2e0d8; --bar: #2a6db0;
  --other: #b9681a; --note: #fff3d6 }
@media (prefers-color-scheme: dark) { :root { --ink: #ecebe6; --faint: #a09e96; --paper: #191918; --line: #383732;
  --bar: #6aa7e6; --other: #e0a05c; --note: #3b3116 } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.35rem; overflow-wrap: anywhere } h2 { margin-top: 2.5rem; font-size: 1.15rem }
h3 { margin: 1.8rem 0 .4rem; font-size: 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right }
th { color: var(--faint); font-weight: 500 } th:first-child, td:first-child { text-align: left }
p.faint, figcaption { color: var(--faint) }
p.note { background: var(--note); padding: .6rem .9rem; border-radius: .3rem }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 0 2rem }
.wide { overflow-x: auto } td.bar { width: 40% } figure { margin: .8rem 0 } figcaption { font-size: .85rem }
td.bar div { height: .7rem; min-width: 1px; background: var(--bar); border-radius: .15rem }
td.bar div.other { background: var(--other) } svg { width: 100%; height: 5rem } rect { fill: var(--bar) }
"""


def page(found: Statistics) -> str:
    """The whole page, light or dark as the reader's system is."""
    kinds = "".join(_kind(found, kind) for kind in found.kinds) or "<p>There are no samples yet.</p>"
    funnel = _funnel(found.funnel) if found.funnel is not None else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Statistics of {_text(found.source)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{_text(found.source)}</h1>{kinds}{funnel}</body></html>\n"
    )


def _kind(found: Statistics, kind: KindStatistics) -> str:
    header = ("", "here", f"in {found.drawn:,} random samples", "paper, section 5.2")
    parts = [f"<h2>Object {_text(kind.kind)}</h2>", _table(header, diversity_rows(kind, found.ordered))]
    parts += [f'<p class="note">{_text(note)}</p>' for note in notes(found, kind)]
    if kind.words:
        columns = ("words", "samples with some in both captions", "of these, they differ in", "share", "in one", "none")
        parts += ["<h3>What changes between the two captions</h3>", _table(columns, map(word_row, kind.words))]
    names = [(each.name, each.count, each.objects365) for each in kind.diversity.top_names]
    pairs = [(f"{each.first} → {each.second}", each.count, True) for each in kind.diversity.top_pairs]
    lists = "".join(
        f"<div><h3>{title}</h3>{_bars(rows)}</div>"
        for title, rows in (("Most frequent objects", names), ("Most frequent pairs", pairs))
        if rows
    )
    parts.append(f'<div class="side">{lists}</div>')
    if not all(known for _, _, known in names):
        parts.append('<p class="faint">Objects with an orange bar are not in Objects365.</p>')
    if kind.scores:
        drawn = "".join(map(_histogram, kind.scores))
        parts.append(f'<h3>Scores of the samples</h3><div class="side">{drawn}</div>')
    return "".join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(each)}</th>" for each in header)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _bars(rows: Sequence[tuple[str, int, bool]]) -> str:
    most = max(count for _, count, _ in rows)
    drawn = "".join(
        f'<tr><td>{_text(name)}</td><td>{number(count)}</td><td class="bar">'
        f'<div{"" if known else " class=other"} style="width:{100 * count / most:.1f}%"></div></td></tr>'
        for name, count, known in rows
    )
    return f"<table>{drawn}</table>"


def _histogram(found: Histogram) -> str:
    most, bars = max(found.counts), len(found.counts)
    drawn = "".join(
        f'<rect x="{place + 0.05:.2f}" y="{1 - count / most:.4f}" width=".9" height="{count / most:.4f}">'
        f"<title>{found.low + place * found.width:.3f}: {count:,}</title></rect>"
        for place, count in enumerate(found.counts)
    )
    told = f"{_text(found.name)}: {found.least:.3f} to {found.most:.3f}, mean {found.mean:.3f}"
    view = f'viewBox="0 0 {bars} 1" preserveAspectRatio="none" role="img"'
    return f"<figure><svg {view}>{drawn}</svg><figcaption>{told}</figcaption></figure>"


def _funnel(funnel: Funnel) -> str:
    rows = [
        (
            step.name,
            number(step.count),
            share(step.count, step.base) if step.base else "",
            ", ".join(f"{reason} {count:,}" for reason, count in step.lost.items()),
        )
        for step in funnel.steps
    ]
    return "<h2>What each filter left</h2>" + _table(("step", "count", "share", "lost before it"), rows)


def _text(text: str) -> str:
    return escape(visible(text))
