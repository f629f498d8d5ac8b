"""What the loop in C counted, as the recorder has it."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from predictd.server.frontend.apis import oip, predictd_v1
from predictd.server.observe.buckets import DURATION_BOUNDS_NS
from predictd.server.observe.deltas import NATIVE_WAYS, NativeWay, RequestSeries

# What is refused there is refused for its expected wait.
SHED = "RESOURCE_EXHAUSTED"
# As the C half has them: `lane->counts`, `enum counts_status`; and NATIVE_WAYS is `enum way`.
APIS = (predictd_v1.API, oip.API)
STATUSES = ("OK", "CANCELLED", "DEADLINE_EXCEEDED", SHED)
_BUCKETS = len(DURATION_BOUNDS_NS) + 1
_COUNT = struct.Struct("<Q")
_ROW = struct.Struct(f"<IIQ{2 * len(STATUSES) + 3 + 2 * _BUCKETS}Q")


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of one lane and protocol.

    Attributes:
        lane: Its id.
        expected_ns: How long the last request was expected to wait.
        series: By status.
    """

    lane: int
    expected_ns: int
    series: tuple[RequestSeries, ...]


def parse(data: bytes) -> Iterator[Counted]:
    """The rows of the command `counts`."""
    now_unix_ns = time.time_ns()
    for lane, api, expected_ns, *values in _ROW.iter_unpack(data):
        many = len(STATUSES)
        requests, totals = values[:many], values[many : 2 * many]
        rows, queue_ns, compute_ns = values[2 * many : 2 * many + 3]
        buckets = values[2 * many + 3 :]
        series = []
        for status, count, total_ns in zip(STATUSES, requests, totals, strict=True):
            if not count:
                continue
            ran = status == "OK"
            series.append(
                RequestSeries(
                    lane=lane,
                    api=APIS[api],
                    status=status,
                    requests=count,
                    total_ns=total_ns,
                    rows=rows if ran else 0,
                    queue_ns=queue_ns if ran else 0,
                    compute_ns=compute_ns if ran else 0,
                    last_unix_ns=now_unix_ns if ran else 0,
                    duration_buckets=buckets[:_BUCKETS] if ran else [0] * _BUCKETS,
                    queue_buckets=buckets[_BUCKETS:] if ran else [0] * _BUCKETS,
                )
            )
        yield Counted(lane, expected_ns, tuple(series))


def parse_ways(data: bytes) -> dict[NativeWay, int]:
    """What the command `ways` gives: how many requests went which way."""
    # None once the loop has ended.
    return {way: count for way, (count,) in zip(NATIVE_WAYS, _COUNT.iter_unpack(data), strict=False)}
