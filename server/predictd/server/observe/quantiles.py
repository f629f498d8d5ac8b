"""Quantiles of histograms, as Prometheus' histogram_quantile computes them: linear within a bucket."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(q: float, bounds: Sequence[float], buckets: Sequence[int]) -> float | None:
    """The value below which a share of the observations lies.

    Args:
        q: The share, more than 0 and at most 1.
        bounds: Upper bounds, ascending.
        buckets: Observations in each bucket, and in one more for what lies past the last bound.

    Returns:
        None without observations; the last bound where the value lies past it.
    """
    observations = sum(buckets)
    if observations == 0:
        return None
    rank, below, lower = q * observations, 0, 0.0
    for bound, count in zip(bounds, buckets, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below += count
        lower = bound
    return bounds[-1]
