"""Words about the machine and about who was busy while something was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from tests.bench import proc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.server.bench.results import Point
    from tests.bench.load import LoadResult

_SATURATED = 0.9
_DISTURBED_CPUS = 0.1


def describe() -> dict[str, str]:
    """What a reader must know to compare numbers with those of another machine."""
    packages = ("grpcio", "onnxruntime", "numpy", "uvloop", "protobuf")
    return {
        "processor": proc.cpu_model(),
        "CPUs": f"{proc.cpus()} of {os.cpu_count()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def disturbance(what: str, foreign_cpus: Sequence[float]) -> list[str]:
    """Whether strangers used the machine meanwhile."""
    if (worst := max(foreign_cpus)) < _DISTURBED_CPUS:
        return []
    return [f"{what}: other processes of the machine used up to {worst:.2f} CPUs meanwhile."]


def limits(what: str, points: Sequence[Point]) -> list[str]:
    """Whether `predictd bench` limited a measurement."""
    limited = [point.client.bottleneck[0] for point in points if point.client.bottleneck]
    if not limited:
        return []
    times = f"{len(limited)} of {len(points)} times"
    return [f"{what}: predictd bench was the bottleneck {times}, such as: {limited[0]}"]


def caveats(what: str, results: Sequence[LoadResult]) -> list[str]:
    """Whether the clients or strangers limited a measurement."""
    found = []
    busiest = max(result.busiest_client for result in results)
    if busiest >= _SATURATED:
        found.append(
            f"{what}: a client process used {busiest:.0%} of a CPU, so the client was the bottleneck."
        )
    return found + disturbance(what, [result.foreign_cpus for result in results])
