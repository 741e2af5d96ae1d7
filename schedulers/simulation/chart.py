"""Two charts as SVG text: how busy each device was under each policy, and what more or fewer devices would cost."""

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
            parts.append(_rectangle(x, y, step * 0.86, height * share, _colour(number)))
            if step > 34:
                parts.append(_text(x + step * 0.43, y - 5, f"{100 * share:.1f}", size=11))
        middle = left + group / 2
        parts.append(_text(middle, bottom + 20, outcome.policy, size=14))
        parts.append(_text(middle, bottom + 40, f"{outcome.hours:.1f} h, {_over(outcome)} the bound", size=12))
    devices = ", ".join(outcomes[0].busy_s)
    parts.append(_text(_LEFT, 44, f"time in batches; from left to right {devices}", size=12, anchor="start"))
    return _svg(title, parts)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _over(outcome: Outcome) -> str:
    return f"{100 * outcome.over_bound:.1f} % over"


def planning_chart(hours: Mapping[str, Mapping[int, float]], bounds: Mapping[int, float], title: str) -> str:
    """A bar for each policy, grouped by number of devices: the device hours that it pays for, with its hours above.

    `bounds` are the hours that no policy can undercut, by number of devices.
    """
    counts = sorted({count for line in hours.values() for count in line})
    high = 1.08 * max(value * count for line in hours.values() for count, value in line.items())
    bottom, height = _HEIGHT - _BOTTOM, _HEIGHT - _TOP - _BOTTOM
    parts = []
    for tick in _ticks(high):
        y = bottom - height * tick / high
        parts += [_line(_LEFT, y, _WIDTH - _RIGHT, y), _text(_LEFT - 8, y + 4, f"{tick:g}", anchor="end")]
    group = (_WIDTH - _LEFT - _RIGHT) / len(counts)
    step = group * 0.9 / len(hours)
    for place, count in enumerate(counts):
        left = _LEFT + group * (place + 0.05)
        for number, line in enumerate(hours.values()):
            tall = height * line[count] * count / high
            x = left + step * number
            parts.append(_rectangle(x, bottom - tall, step * 0.88, tall, _colour(number)))
            parts.append(_text(x + step * 0.44, bottom - tall - 4, f"{line[count]:.3g} h", size=10))
        y = bottom - height * bounds[count] * count / high
        parts.append(_line(left - group * 0.04, y, left + group * 0.94, y, "#d00"))
        parts.append(_text(left + group * 0.45, bottom + 20, f"{count} device{'s' * (count > 1)}", size=14))
    legend = _LEFT
    for number, policy in enumerate(hours):
        parts.append(_rectangle(legend, bottom + 34, 12, 12, _colour(number)))
        parts.append(_text(legend + 18, bottom + 45, policy, anchor="start"))
        legend += 150
    parts.append(_text(legend, bottom + 45, "red: the least possible", anchor="start", colour="#d00"))
    parts.append(_text(_LEFT, 44, "device hours; above each bar the hours of the run", size=12, anchor="start"))
    return _svg(title, parts)


def _ticks(high: float) -> list[float]:
    """Four to ten round steps from 0 up to `high`."""
    step = 10.0 ** math.floor(math.log10(high))
    step = step if high / step >= 4 else step / 2 if high / step >= 2 else step / 4
    return [step * number for number in range(int(high / step) + 1)]
