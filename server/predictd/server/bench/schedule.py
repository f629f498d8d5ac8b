"""When requests arrive in an open loop."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

ARRIVALS = ("poisson", "constant")


def arrivals(
    kind: str, per_second: float, begin_ns: int, *, part: int = 0, parts: int = 1, seed: int = 0
) -> Iterator[int]:
    """Times in nanoseconds, ascending and without end.

    Args:
        kind: One of `ARRIVALS`: gaps that are random, or all the same.
        per_second: Of all parts together.
        begin_ns: From when on.
        part: Which process this is.
        parts: Processes that share the requests. What several Poisson processes send together is one again; of
            constant arrivals each takes every so manieth.
        seed: Another one gives other random gaps.
    """
    if kind == "constant":
        gap_ns = 1e9 / per_second
        return (begin_ns + round(number * gap_ns) for number in itertools.count(part, parts))
    return _poisson(per_second / parts, begin_ns, random.Random(f"{seed}/{part}"))  # noqa: S311


def _poisson(per_second: float, begin_ns: int, chance: random.Random) -> Iterator[int]:
    seconds = 0.0
    while True:
        seconds += chance.expovariate(per_second)
        yield begin_ns + round(seconds * 1e9)


def shared(whole: int, parts: int) -> list[int]:
    """A number divided into parts that differ by one at most, the larger first."""
    return [whole // parts + (part < whole % parts) for part in range(parts)]
