"""The histogram bounds that children and the supervisor share.

Children sort into buckets, the supervisor only adds the counts up; both must agree on the bounds, so a change
here is a change of the control channel's messages.
"""

from __future__ import annotations

_MANTISSAS = (1, 2, 3, 5)

# 10 µs to 60 s. With four bounds a decade an interpolated p99.9 is off by less than the width of one bucket,
# a factor of two at most, for 29 series a histogram.
DURATION_BOUNDS_NS: tuple[int, ...] = (
    *(mantissa * 10**power for power in range(4, 10) for mantissa in _MANTISSAS),
    10_000_000_000,
    20_000_000_000,
    30_000_000_000,
    60_000_000_000,
)
DURATION_BUCKETS_SECONDS: tuple[float, ...] = tuple(bound / 1e9 for bound in DURATION_BOUNDS_NS)

# Powers of two up to the largest batch that anybody configures.
ROWS_BUCKETS: tuple[int, ...] = tuple(2**power for power in range(13))

# Rows of a run are counted exactly up to here and rounded up to a power of two beyond, where only single
# large requests are found: it bounds what a client with ever different sizes can make the daemon remember.
EXACT_ROWS_MAX = 1024


def rows_key(rows: int) -> int:
    """The number of rows under which a run is remembered: exact while small, then a power of two."""
    return rows if rows <= EXACT_ROWS_MAX else 1 << (rows - 1).bit_length()
