"""What was found, as it is printed, drawn, and kept as JSON."""

from __future__ import annotations

import msgspec

from predictd.server.measure.quantities import count, number

FORMAT = 1
# Those of the table, the page and the comparison.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
# Those of the percentile plot: a part of what is left, again and again.
CURVE = tuple(1 - left * 10.0**-decade for decade in range(5) for left in (1.0, 0.5, 0.25, 0.15))


class Quantile(msgspec.Struct, frozen=True):
    """A percentile of the latency.

    Attributes:
        q: What share of the answers did not take longer than this.
        seconds: How long.
        low_seconds: Lower end of its interval of confidence of 95%; None if there were too few answers.
        high_seconds: Upper end.
    """

    q: float
    seconds: float
    low_seconds: float | None = None
    high_seconds: float | None = None


class ModelResult(msgspec.Struct, frozen=True):
    """One of several models."""

    name: str
    answers: int
    p50_seconds: float
    p99_seconds: float


class Batches(msgspec.Struct, frozen=True):
    """How the daemon batched, from its own metrics.

    Attributes:
        runs: Of the engine.
        rows: In these runs.
        by_rows: Runs with at most so many rows, and more than the entry before.
    """

    runs: int
    rows: int
    by_rows: dict[str, int]

    @property
    def mean(self) -> float:
        """Rows of an average run."""
        return self.rows / self.runs if self.runs else 0.0


class ClientSide(msgspec.Struct, frozen=True):
    """How the load generator itself fared.

    Attributes:
        busiest_cpu: Largest share of a CPU that one of its processes used.
        late_p99_seconds: In an open loop, how late requests left at most, but for one in a hundred.
        lag_seconds: How late its event loop usually was.
        bottleneck: Why the load generator limited the result; empty if it did not.
    """

    busiest_cpu: float
    late_p99_seconds: float
    lag_seconds: float
    bottleneck: list[str]


class Point(msgspec.Struct, frozen=True):
    """One load.

    Attributes:
        callers: Of a closed loop; 0 for an open one.
        rate: What an open loop offered, a second; 0 for a closed one.
        seconds: How long it was measured.
        warm_up_seconds: Before that.
        steady: Throughput and latency did not change any more when it began.
        answers: With status OK.
        per_second: Those.
        per_second_low: Lower end of the interval of confidence of 95%.
        per_second_high: Upper end.
        mean_seconds: Of the latencies.
        max_seconds: The longest.
        quantiles: Those of the table that there are enough answers for.
        curve: All the percentiles, for a plot.
        errors: Other outcomes, and how often.
        unanswered: Requests without an answer in the end.
        in_flight: Under way on the average.
        client: The load generator.
        models: If there are several.
        batches: If the daemon's metrics were read.
    """

    callers: int
    rate: float
    seconds: float
    warm_up_seconds: float
    steady: bool
    answers: int
    per_second: float
    per_second_low: float
    per_second_high: float
    mean_seconds: float
    max_seconds: float
    quantiles: dict[str, Quantile]
    curve: list[Quantile]
    errors: dict[str, int]
    unanswered: int
    in_flight: float
    client: ClientSide
    models: list[ModelResult] = []
    batches: Batches | None = None

    @property
    def label(self) -> str:
        """The load, in words."""
        return load_text(self.callers, self.rate)

    @property
    def overloaded(self) -> bool:
        """An open loop that was not kept up with: its latencies grow with the time of the measurement."""
        return self.rate > 0 and self.per_second_high < 0.98 * self.rate


def load_text(callers: int, rate: float) -> str:
    """So many callers of a closed loop, or so many requests a second of an open one, in words."""
    return count(callers, "caller", "callers") if callers else f"{number(rate, 6)}/s"


class SloResult(msgspec.Struct, frozen=True):
    """The highest rate that keeps a limit.

    Attributes:
        quantile: Of the latency, such as p99.
        limit_seconds: The limit.
        rate: The highest that was seen to keep it; None if none did.
        failed_rate: The lowest that was seen to break it; None if none did.
    """

    quantile: str
    limit_seconds: float
    rate: float | None
    failed_rate: float | None


class Result(msgspec.Struct, frozen=True):
    """A whole bench."""

    target: str
    api: str
    streams: bool
    models: list[str]
    inputs: str
    arrivals: str
    connections: int
    processes: int
    machine: dict[str, str]
    began: str
    points: list[Point]
    slo: SloResult | None = None
    tls: bool = False
    format: int = FORMAT

    @property
    def how(self) -> str:
        """How the server was reached, and what it was sent."""
        way = "streams" if self.streams else "unary"
        return (
            f"{self.api} ({way}{', TLS' if self.tls else ''}), up to "
            f"{count(self.connections, 'connection', 'connections')} of "
            f"{count(self.processes, 'process', 'processes')}; {self.inputs}"
        )
