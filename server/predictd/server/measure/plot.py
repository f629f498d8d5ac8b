"""A throughput-latency plot as SVG, drawn from nothing but numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from predictd.server.measure.scale import Scale, round_numbers

_WIDTH, _HEIGHT = 820, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 50, 60
# Distinct also to those who do not tell red from green (Okabe and Ito).
_COLOURS = ("#555555", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_TICKS = 5
_HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
    'font-family="sans-serif" font-size="12">'
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What was measured once.

    Attributes:
        per_second: Throughput.
        p99_seconds: Latency that 99% did not exceed.
        caption: What is told of it where somebody points at it.
    """

    per_second: float
    p99_seconds: float
    caption: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A candidate's marks, in the order in which they are connected.

    Attributes:
        label: In the legend.
        points: At least one.
    """

    label: str
    points: tuple[Mark, ...]


def plot(
    title: str,
    curves: Sequence[Curve],
    slo_seconds: float | None = None,
    *,
    per_second: str = "answers a second",
) -> str:
    """Draw throughput to the right and the latency of 99% upwards, one curve a candidate.

    Args:
        title: Above the plot.
        curves: At least one.
        slo_seconds: Drawn as a line where there is one.
        per_second: What the throughput counts.
    """
    points = [point for curve in curves for point in curve.points]
    latencies = [point.p99_seconds * 1e3 for point in points]
    latencies += [] if slo_seconds is None else [slo_seconds * 1e3]
    most = max(point.per_second for point in points) * 1.05
    x = Scale(0.0, _nice(most), _LEFT, _WIDTH - _RIGHT)
    y = Scale(min(latencies) * 0.8, max(latencies) * 1.25, _HEIGHT - _BOTTOM, _TOP, log=True)
    lines = [
        _HEAD,
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_WIDTH / 2, 24, title, anchor="middle", size=15),
        *_axes(x, y, per_second),
        *_slo(y, slo_seconds),
    ]
    for number, curve in enumerate(curves):
        lines += _curve(curve, _COLOURS[number % len(_COLOURS)], number, x, y)
    return "\n".join((*lines, "</svg>", ""))


def _axes(x: Scale, y: Scale, per_second: str) -> Iterator[str]:
    for number in range(_TICKS + 1):
        value = x.high * number / _TICKS
        at = x.at(value)
        yield _line(at, y.start, at, y.end, "#dddddd")
        yield _text(at, y.start + 18, f"{value:g}", anchor="middle")
    for value in round_numbers(y.low, y.high):
        at = y.at(value)
        yield _line(x.start, at, x.end, at, "#dddddd")
        yield _text(x.start - 8, at + 4, f"{value:g}", anchor="end")
    yield _line(x.start, y.start, x.end, y.start, "black")
    yield _line(x.start, y.start, x.start, y.end, "black")
    yield _text((x.start + x.end) / 2, _HEIGHT - 16, per_second, anchor="middle")
    middle = (y.start + y.end) / 2
    yield (
        f'<text x="20" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 20 {middle:.1f})">'
        "latency of 99% in ms</text>"
    )


def _slo(y: Scale, slo_seconds: float | None) -> Iterator[str]:
    if slo_seconds is None:
        return
    at = y.at(slo_seconds * 1e3)
    yield _line(_LEFT, at, _WIDTH - _RIGHT, at, "#cc0000", dash=True)
    yield _text(_WIDTH - _RIGHT, at - 5, f"SLO {slo_seconds * 1e3:g} ms", anchor="end")


def _curve(curve: Curve, colour: str, number: int, x: Scale, y: Scale) -> Iterator[str]:
    places = [(x.at(p.per_second), y.at(p.p99_seconds * 1e3), p.caption) for p in curve.points]
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top, _ in places)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for left, top, told in places:
        caption = f"{told}: {curve.label}"
        yield (
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="{colour}"><title>{escape(caption)}</title></circle>'
        )
    row = _TOP + 16 + 18 * number
    yield _line(_LEFT + 14, row - 4, _LEFT + 38, row - 4, colour, width=2)
    yield _text(_LEFT + 44, row, curve.label)


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1, dash: bool = False
) -> str:
    dashes = ' stroke-dasharray="6 4"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dashes}/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _nice(value: float) -> float:
    """The next larger number that five ticks divide well."""
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 15) if step * scale >= value)
