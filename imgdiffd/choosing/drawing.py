"""Draws how scores are spread as one SVG, readable on light and dark pages."""

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from imgdiffd.choosing.bounds import ScoreBounds

WIDTH = 760
_LEFT, _RIGHT = 56, 64  # for the axes' numbers
_HEAD, _MARK, _PLOT, _FOOT = 52, 16, 120, 40  # heights: titles, a row of a mark, the bars, the axis below
_CHARACTER = 6.6  # width at most, on average, of a character of 12 px

_STYLE = """
svg { --paper: #ffffff; --ink: #16191d; --soft: #525b67; --line: #d5d9df; --kept: #1558b8;
  --lost: #8a929e; --samples: #a63d00 }
@media (prefers-color-scheme: dark) { svg { --paper: #101317; --ink: #e8ebef; --soft: #a6b0bd; --line: #323943;
  --kept: #82b4ff; --lost: #6b7583; --samples: #ffa56b } }
text { font: 12px system-ui, "Liberation Sans", sans-serif; fill: var(--ink); paint-order: stroke; stroke: var(--paper);
  stroke-width: 4px; stroke-linejoin: round }
.title { font-size: 15px; font-weight: 600 } .soft { fill: var(--soft) } .samples { fill: var(--samples) }
.paper { fill: var(--paper) } .kept { fill: var(--kept) } .lost { fill: var(--lost) }
line { stroke: var(--line) } line.mark { stroke: var(--ink); stroke-dasharray: 4 3 }
line.own { stroke: var(--ink); stroke-width: 2 }
polyline { fill: none; stroke: var(--samples); stroke-width: 2; stroke-linejoin: round }
"""


def draw(title: str, found: Sequence[ScoreBounds]) -> str:
    """A panel for each bound: bars for the score, and a line for the samples if only this bound moved."""
    parts: list[str] = []
    top = 64.0
    for bounds in found:
        parts += _panel(bounds, top)
        top += _HEAD + _MARK * len(_marks(bounds)) + _PLOT + _FOOT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" role="img">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{top:.0f}"/>',
            _text(16, 24, title, "title"),
            *_legend(),
            *parts,
            "</svg>",
            "",
        ]
    )


def _legend() -> Iterable[str]:
    yield '<rect class="kept" x="16" y="37" width="12" height="12"/>'
    yield _text(34, 48, "kept by this bound")
    yield '<rect class="lost" x="164" y="37" width="12" height="12"/>'
    yield _text(182, 48, "lost by it (heights are square roots)")
    yield '<polyline points="410,43 434,43"/>'
    yield _text(440, 48, "samples, if only this bound moved")


def _panel(bounds: ScoreBounds, top: float) -> Iterable[str]:
    marks = _marks(bounds)
    base = top + _HEAD + _MARK * len(marks) + _PLOT
    own, pick = bounds.own, "above" if bounds.above else "below"
    yield _text(16, top + 18, f"{bounds.key} = {own.bound:g}", "title")
    missing = f", {bounds.missing:,} have no such score" if bounds.missing else ""
    told = f"{own.passing:,} of {sum(bounds.counts):,} {bounds.of} lie {pick} it{missing}; {own.samples:,} samples"
    yield _text(16, top + 36, told, "soft")
    yield from _bars(bounds, base)
    yield from _samples(bounds, base)
    for row, (value, names) in enumerate(marks):
        yield from _mark(bounds, value, names, top + _HEAD + _MARK * row, base)
    every = -(-len(bounds.edges) // 10)
    for edge in bounds.edges[::every]:
        yield _text(_x(bounds, edge), base + 16, f"{edge:g}", "soft", "middle")


def _x(bounds: ScoreBounds, value: float) -> float:
    low, high = bounds.edges[0], bounds.edges[-1]
    return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)


def _bars(bounds: ScoreBounds, base: float) -> Iterable[str]:
    """Square roots, so that single cases stay visible."""
    most = max(bounds.counts, default=0) or 1
    yield f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base:.1f}" y2="{base:.1f}"/>'
    yield _text(_LEFT - 6, base - _PLOT + 10, f"{most:,}", "soft", "end")
    yield _text(_LEFT - 6, base, "0", "soft", "end")
    for low, high, count in zip(bounds.edges, bounds.edges[1:], bounds.counts, strict=False):
        left, right = _x(bounds, low), _x(bounds, high)
        middle = (low + high) / 2
        kept = middle > bounds.own.bound if bounds.above else middle < bounds.own.bound
        height = _PLOT * (count / most) ** 0.5
        yield (
            f'<rect class="{"kept" if kept else "lost"}" x="{left + 0.5:.1f}" y="{base - height:.1f}" '
            f'width="{max(right - left - 1, 0.5):.1f}" height="{height:.1f}"/>'
        )


def _samples(bounds: ScoreBounds, base: float) -> Iterable[str]:
    most = max((choice.samples for choice in bounds.choices), default=0) or 1
    points = " ".join(
        f"{_x(bounds, choice.bound):.1f},{base - _PLOT * choice.samples / most:.1f}" for choice in bounds.choices
    )
    yield f'<polyline points="{points}"/>'
    yield _text(WIDTH - _RIGHT + 6, base - _PLOT + 10, f"{most:,}", "samples")
    yield _text(WIDTH - _RIGHT + 6, base - _PLOT + 24, "samples", "samples")
    yield _text(WIDTH - _RIGHT + 6, base, "0", "samples")


def _marks(bounds: ScoreBounds) -> list[tuple[float, str]]:
    """Each bound with the names of its profiles, the highest bound last; each gets a row of its own."""
    names: dict[float, list[str]] = {}
    for name, value in bounds.marks.items():
        names.setdefault(value, []).append(name)
    return [(value, ", ".join(names[value])) for value in sorted(names)]


def _mark(bounds: ScoreBounds, value: float, names: str, y: float, base: float) -> Iterable[str]:
    label, low, high = f"{names} {value:g}", bounds.edges[0], bounds.edges[-1]
    if not low <= value <= high:  # beyond the drawn part
        label = f"{label} →" if value > high else f"← {label}"
    x = _x(bounds, min(max(value, low), high))
    if low <= value <= high:
        kind = "own" if value == bounds.own.bound else "mark"
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 2:.1f}" y2="{base:.1f}"/>'
    right = x + 5 + _CHARACTER * len(label) <= WIDTH
    yield _text(x + 5 if right else x - 5, y + 12, label, "", "start" if right else "end")


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{of}>{escape(words)}</text>'
