"""How the options of `predictd bench` are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import click

from predictd.server.bench.slo import Slo
from predictd.server.config.units import parse_duration_ns

_QUANTILES = ("p50", "p90", "p99", "p99.9", "p99.99")
_MOST = 1 << 20


def shapes(
    _ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Read NAME:NxDxD."""
    found = {}
    for text in texts:
        name, colon, sizes = text.rpartition(":")
        try:
            shape = tuple(
                -1 if size == "N" and at == 0 else int(size) for at, size in enumerate(sizes.split("x"))
            )
        except ValueError:
            shape = ()
        if not colon or not shape or any(size < 0 and (at or size != -1) for at, size in enumerate(shape)):
            raise click.BadParameter(f"{text!r} is not like NAME:1x3x224x224 or NAME:Nx3x224x224")
        found[name] = shape
    return found


def ranges(
    _ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Read NAME:LOW:HIGH."""
    found = {}
    for text in texts:
        try:
            name, low, high = text.rsplit(":", 2)
            bounds = float(low), float(high)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not like NAME:0:255") from error
        if not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
            raise click.BadParameter(f"{text!r}: the first number must not be above the second")
        found[name] = bounds
    return found


Read = Callable[[click.Context, click.Parameter, str | None], tuple[float, ...]]


def numbers(*, whole: bool) -> Read:
    """Numbers above 0, ascending, from a list with commas."""
    example = "1,4,16" if whole else "100,200"

    def read(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[float, ...]:
        if text is None:
            return ()
        try:
            values = sorted({int(word) if whole else float(word) for word in text.split(",")})
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is no list of numbers such as {example}") from error
        if not all(math.isfinite(value) for value in values) or values[0] <= 0 or values[-1] > _MOST:
            raise click.BadParameter(f"numbers are above 0, up to {_MOST}")
        return tuple(values)

    return read


def slo(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> Slo | None:
    """Read p99=20ms."""
    if text is None:
        return None
    quantile, equals, limit = text.partition("=")
    if not equals or quantile not in _QUANTILES:
        raise click.BadParameter(f"{text!r} is not like p99=20ms; there are {', '.join(_QUANTILES)}")
    try:
        nanoseconds = parse_duration_ns(limit)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if nanoseconds <= 0:
        raise click.BadParameter("the limit must be more than 0")
    return Slo(quantile, nanoseconds / 1e9)
