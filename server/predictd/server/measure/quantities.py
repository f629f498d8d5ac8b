"""Numbers, times and sizes as people read them."""

from __future__ import annotations


def number(value: float, digits: int) -> str:
    """A number with so many significant digits; a larger one has all before the point, and no exponent."""
    return f"{value:.0f}" if value >= 10**digits - 0.5 else f"{value:.{digits}g}"


def count(amount: int, one: str, several: str) -> str:
    """A number with its noun."""
    return f"{amount} {one if amount == 1 else several}"


def seconds(value: float) -> str:
    """A time in the unit in which it is easy to read."""
    if value >= 1:
        return f"{number(value, 3)} s"
    return f"{number(value * 1e3, 3)} ms" if value >= 1e-3 else f"{number(value * 1e6, 3)} µs"


def size(value_bytes: int) -> str:
    """A size in the unit in which it is easy to read."""
    value, unit = float(value_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{number(value, 4)} {unit}"
