"""What many latencies come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_PERMILLES = (500, 900, 950, 990, 999)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of some runs.

    Attributes:
        min_seconds: Of the shortest.
        mean_seconds: Of all together by their number.
        p50_seconds: What half of them did not exceed.
        p90_seconds: What 90% did not exceed, and so on.
        p95_seconds: 95%.
        p99_seconds: 99%.
        p999_seconds: 99.9%.
        max_seconds: Of the longest.
    """

    min_seconds: float
    mean_seconds: float
    p50_seconds: float
    p90_seconds: float
    p95_seconds: float
    p99_seconds: float
    p999_seconds: float
    max_seconds: float


def latency(nanoseconds: npt.NDArray[Any]) -> Latency:
    """Sum up; at least one. A percentile is always one of the latencies, never between two of them."""
    seconds = np.sort(np.asarray(nanoseconds, np.float64)) / 1e9
    p50, p90, p95, p99, p999 = (
        float(seconds[-(-permille * len(seconds) // 1000) - 1]) for permille in _PERMILLES
    )
    return Latency(float(seconds[0]), float(seconds.mean()), p50, p90, p95, p99, p999, float(seconds[-1]))
