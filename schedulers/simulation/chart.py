"""Two charts as SVG text: how busy each device was under each policy, and the hours by number of devices.

It owns drawing; it does not know how the figures came about, and needs no library.
"""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from imgdiffd.schedulers.simulation.outcome import Outcome

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")  # Okabe and Ito's, told apart by everyone
_WIDTH, _HEIGHT = 860, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 68, 62


def _text(x: float, y: float, words: str, *, size: int = 13, anchor: str = "middle", colour: str = "#222") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#ddd") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _svg(title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif"><title>{escape(title)}</title>'
    )
    body = [_rectangle(0, 0, _WIDTH, _HEIGHT, "#fff"), _text(_LEFT, 24, title, size=16, anchor="start"), *parts]
    return "\n".join([head, *body, "</svg>", ""])


def utilisation_chart(outcomes: Sequence[Outcome], title: str) -> str:
    """A bar for each device, grouped by policy: the share of that policy's run that it spent in batches."""
    bottom, height = _HEIGHT - _BOTTOM, _HEIGHT - _TOP - _BOTTOM
    parts = []
    for percent in (0, 25, 50, 75, 100):
        y = bottom - height * percent / 100
        parts += [_line(_LEFT, y, _WIDTH - _RIGHT, y), _text(_LEFT - 8, y + 4, f"{percent} %", anchor="end")]
    group = (_WIDTH - _LEFT - _RIGHT) / len(outcomes)
    for number, outcome in enumerate(outcomes):
        left = _LEFT + group * number
        step = group * 0.84 / len(outcome.busy_s)
        for place, share in enumerate(outcome.utilisation.values()):
            x, y = left + group * 0.08 + step * place, bottom - height * share
            parts.append(_rectangle(x, y, step * 0.86, height * share, _COLOURS[number % len(_COLOURS)]))
            if step > 34:
                parts.append(_text(x + step * 0.43, y - 5, f"{100 * share:.1f}", size=11))
        middle = left + group / 2
        parts.append(_text(middle, bottom + 20, outcome.policy, size=14))
        parts.append(_text(middle, bottom + 40, f"{outcome.hours:.1f} h, {_over(outcome)} the bound", size=12))
    devices = ", ".join(outcomes[0].busy_s)
    parts.append(_text(_LEFT, 44, f"time in batches; from left to right {devices}", size=12, anchor="start"))
    return _svg(title, parts)


def _over(outcome: Outcome) -> str:
    return f"{100 * outcome.over_bound:.1f} % over"


def planning_chart(hours: Mapping[str, Mapping[int, float]], title: str) -> str:
    """A line for each policy: the hours by number of devices, both axes logarithmic, so that ideal is straight."""
    counts = sorted({count for line in hours.values() for count in line})
    values = [value for line in hours.values() for value in line.values()]
    low, high = math.log(min(values) * 0.8), math.log(max(values) * 1.25)
    bottom, height, width = _HEIGHT - _BOTTOM, _HEIGHT - _TOP - _BOTTOM, _WIDTH - _LEFT - _RIGHT - 150

    def x_of(count: int) -> float:
        return _LEFT + 24 + (width - 48) * counts.index(count) / max(1, len(counts) - 1)

    def y_of(value: float) -> float:
        return bottom - height * (math.log(value) - low) / (high - low)

    parts = []
    for tick in _ticks(min(values) * 0.8, max(values) * 1.25):
        parts.append(_line(_LEFT, y_of(tick), _LEFT + width, y_of(tick)))
        parts.append(_text(_LEFT - 8, y_of(tick) + 4, f"{tick:g} h", anchor="end"))
    for count in counts:
        parts.append(_text(x_of(count), bottom + 20, str(count)))
    parts.append(_text(_LEFT + width / 2, bottom + 42, "devices", size=13))
    for number, (policy, line) in reversed(list(enumerate(hours.items()))):  # the first is drawn above the others
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{x_of(count):.1f},{y_of(value):.1f}" for count, value in sorted(line.items()))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        y = _TOP + 24 * number
        parts.append(_line(_WIDTH - _RIGHT - 138, y, _WIDTH - _RIGHT - 114, y, colour))
        parts.append(_text(_WIDTH - _RIGHT - 106, y + 4, policy, anchor="start"))
    first = next(iter(hours.values()))
    for count, value in sorted(first.items()):
        parts.append(_text(x_of(count), y_of(value) + 18, f"{value:.3g} h", size=12, colour=_COLOURS[0]))
    return _svg(title, parts)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
