"""Charts as SVG whose colours come from the page's style, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from predictd.server.measure.scale import Scale, round_numbers

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 150, 16, 52
_TICKS = 5
# Of classes in the style: c0, c1, and so on.
COLOURS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        label: In the legend.
        points: X, y, and what is told where somebody points at it.
    """

    label: str
    points: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction.

    Attributes:
        title: What it counts.
        log: Logarithmic; else it begins at 0.
        marks: Values and their texts, where they are not found by themselves.
    """

    title: str
    log: bool = False
    marks: tuple[tuple[float, str], ...] = ()


def lines(curves: Sequence[Line], x: Axis, y: Axis, limit: tuple[float, str] | None = None) -> str:
    """Curves over two axes. A limit is a line across. All values are above 0 where an axis is logarithmic."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    heights = [point[1] for point in points] + ([] if limit is None else [limit[0]])
    across = _scale(x, [point[0] for point in points], _LEFT, _WIDTH - _RIGHT)
    upward = _scale(y, heights, _HEIGHT - _BOTTOM, _TOP)
    parts = [*_frame(x, y, across, upward)]
    if limit is not None:
        at = upward.at(limit[0])
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(_WIDTH - _RIGHT - 4, at - 5, limit[1], "end"))
    for number, curve in enumerate(curves):
        parts += _curve(curve, number, across, upward)
    return _svg(parts)


def bars(groups: Sequence[tuple[str, Sequence[tuple[str, int]]]]) -> str:
    """For each group the shares of its parts, as one bar."""
    known = {name for _, parts in groups for name, _ in parts}
    names = sorted(known, key=float)
    height = 30
    drawn: list[str] = []
    for row, (label, parts) in enumerate(groups):
        top, left, whole = _TOP + row * height, float(_LEFT + 30), sum(count for _, count in parts) or 1
        drawn.append(_text(left - 8, top + 15, label, "end"))
        for name, count in parts:
            width = count / whole * (_WIDTH - _LEFT - _RIGHT - 30)
            told = escape(f"{label}: {count} runs of up to {name} rows")
            drawn.append(
                f'<rect class="fill c{names.index(name) % COLOURS}" x="{left:.1f}" y="{top}" width="{width:.1f}" '
                f'height="{height - 8}"><title>{told}</title></rect>'
            )
            left += width
    for number, name in enumerate(names):
        at = _TOP + 12 + number * 18
        drawn.append(
            f'<rect class="fill c{number % COLOURS}" x="{_WIDTH - _RIGHT + 16}" y="{at - 10}" width="12" height="12"/>'
        )
        drawn.append(_text(_WIDTH - _RIGHT + 34, at, f"≤ {name} rows"))
    return _svg(drawn, max(len(groups) * height, len(names) * 18) + 2 * _TOP)


def _svg(parts: Sequence[str], height: int = _HEIGHT) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> Scale:
    values = [*values, *(value for value, _ in axis.marks)]
    low, high = (min(values) * 0.8, max(values) * 1.25) if axis.log else (0.0, max(values) * 1.05 or 1.0)
    if axis.marks:
        low, high = min(values), max(values)
    return Scale(low, high, start, end, axis.log)


def _frame(x: Axis, y: Axis, across: Scale, upward: Scale) -> Iterator[str]:
    for value, text in x.marks or _ticks(across):
        at = across.at(value)
        yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{upward.start}" y2="{upward.end}"/>'
        yield _text(at, upward.start + 18, text, "middle")
    for value, text in y.marks or _ticks(upward):
        at = upward.at(value)
        yield f'<line class="grid" x1="{across.start}" x2="{across.end}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield _text(across.start - 8, at + 4, text, "end")
    yield _text((across.start + across.end) / 2, _HEIGHT - 8, x.title, "middle")
    middle = (upward.start + upward.end) / 2
    yield (
        f'<text x="16" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 16 {middle:.1f})">'
        f"{escape(y.title)}</text>"
    )


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    if not scale.log:
        step = _round_step(scale.high / _TICKS)
        return [(step * n, f"{step * n:g}") for n in range(int(scale.high / step) + 1)]
    return [(value, f"{value:g}") for value in round_numbers(scale.low, scale.high)]


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= least)


def _curve(curve: Line, number: int, across: Scale, upward: Scale) -> Iterator[str]:
    colour = f"c{number % COLOURS}"
    places = [(across.at(x), upward.at(y), told) for x, y, told in curve.points]
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top, _ in places)
    yield f'<polyline class="{colour}" points="{path}"/>'
    for left, top, told in places:
        yield (
            f'<circle class="fill {colour}" cx="{left:.1f}" cy="{top:.1f}" r="3.5">'
            f"<title>{escape(told)}</title></circle>"
        )
    at, row = _WIDTH - _RIGHT + 16, _TOP + 12 + 18 * number
    yield f'<line class="{colour}" x1="{at}" x2="{at + 18}" y1="{row - 4}" y2="{row - 4}"/>'
    yield _text(at + 24, row, curve.label)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
