"""What the intervals of several processes come to: when a measurement begins, when it ends, what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from predictd.server.bench.histogram import Histogram
from predictd.server.bench.messages import Interval
from predictd.server.bench.meter import WARM_UPS_MAX, Meter, Times
from predictd.server.bench.results import Batches, Point
from predictd.server.bench.slo import Slo

TIMES = Times(interval_seconds=0.1, warm_up_seconds=1.0, seconds=2.0)
MS = 1_000_000


def interval(
    number: int, answers: int, latency_ns: int = MS, *, models: int = 1, failure: str = "", **more: int
) -> Interval:
    histogram, late = Histogram(), Histogram()
    for _ in range(answers):
        histogram.record(latency_ns)
        late.record(more.get("late_ns", 0))
    return Interval(
        number=number,
        latencies=[histogram.counts] * models,
        late=late.counts,
        errors={"grpc-status 8": more["errors"]} if "errors" in more else {},
        in_flight=3,
        lag_ns=more.get("lag_ns", 0),
        cpu_seconds=more.get("cpu_ms", 10) / 1000,
        waited_seconds=more.get("waited_ms", 0) / 1000,
        failure=failure,
    )


def run(meter: Meter, make: Callable[[int], Interval], most: int = 200) -> int:
    """How many intervals it took."""
    for number in range(most):
        if meter.add(make(number)):
            return number + 1
    raise AssertionError("never enough")


def point(meter: Meter, rate: float = 0.0, names: tuple[str, ...] = ("m",)) -> Point:
    callers = 0 if rate else 4
    return meter.point(callers=callers, rate=rate, names=names, unanswered=0, batches=None)


def test_a_steady_load() -> None:
    meter = Meter(1, 1, TIMES)
    assert run(meter, lambda n: interval(n, 50)) == 30
    found = point(meter)
    assert found.steady
    assert (found.warm_up_seconds, found.seconds, found.answers) == (1.0, 2.0, 1000)
    assert found.per_second == found.per_second_low == found.per_second_high == 500
    assert found.quantiles["p50"].seconds == pytest.approx(1e-3, rel=0.01)
    # One in ten thousand is not among a thousand.
    assert set(found.quantiles) == {"p50", "p90", "p99", "p99.9"}
    assert found.in_flight == 3
    assert found.client.busiest_cpu == pytest.approx(0.1)
    assert found.client.bottleneck == []
    assert found.label == "4 callers"
    assert "measuring" in meter.progress()


def test_the_measurement_begins_when_throughput_and_latency_have_settled() -> None:
    meter = Meter(1, 1, TIMES)
    took = run(meter, lambda n: interval(n, min(n, 20) * 40, MS * (21 - min(n, 20))))
    found = point(meter)
    assert found.steady
    assert took > 30
    assert found.answers == 20 * 800
    assert found.max_seconds == pytest.approx(1e-3, rel=0.01)


def test_a_load_that_never_settles_is_measured_and_said_not_to() -> None:
    meter = Meter(1, 1, TIMES)
    assert run(meter, lambda n: interval(n, 1000 if n // 5 % 2 else 100)) == (WARM_UPS_MAX + 2) * 10
    assert not point(meter).steady


def test_few_answers_get_more_time_but_not_without_end() -> None:
    meter = Meter(1, 1, TIMES)
    took = run(meter, lambda n: interval(n, 1))
    found = point(meter)
    assert found.answers == 80
    assert took == round((found.warm_up_seconds + 8.0) / 0.1)
    assert "p99" not in found.quantiles


def test_processes_are_put_together_by_the_number_of_the_interval() -> None:
    meter = Meter(2, 2, TIMES)
    for number in range(50):
        meter.add(interval(number, 10, models=2))
    assert meter.slices == []
    run(meter, lambda n: interval(n, 10, models=2, cpu_ms=95))
    found = point(meter, names=("a", "b"))
    assert found.answers == 20 * 10 * 4
    assert [(model.name, model.answers) for model in found.models] == [("a", 400), ("b", 400)]
    assert found.in_flight == 6
    assert found.client.busiest_cpu == pytest.approx(0.95)
    assert "95% of a CPU" in found.client.bottleneck[0]


@pytest.mark.parametrize(("waited_ms", "said"), [(60, 1), (20, 0)])
def test_the_load_generator_says_when_others_have_its_cpu(waited_ms: int, said: int) -> None:
    meter = Meter(1, 1, TIMES)
    run(meter, lambda n: interval(n, 50, cpu_ms=35, waited_ms=waited_ms))
    found = point(meter).client.bottleneck
    assert len(found) == said
    assert all("used 35% of a CPU and wanted 95%" in reason for reason in found)


def test_the_load_generator_says_when_it_is_late() -> None:
    meter = Meter(1, 1, TIMES)
    run(meter, lambda n: interval(n, 50, late_ns=3 * MS, lag_ns=7 * MS))
    first, second = point(meter, rate=500).client.bottleneck
    assert first == "1% of the requests left 3.01 ms after their time or later"
    assert second == "its event loop was 7 ms late"


def test_errors_and_an_overload_break_a_limit() -> None:
    limit = Slo("p99", 0.01)
    fine, failing, over = Meter(1, 1, TIMES), Meter(1, 1, TIMES), Meter(1, 1, TIMES)
    run(fine, lambda n: interval(n, 50))
    run(failing, lambda n: interval(n, 50, errors=1))
    run(over, lambda n: interval(n, 40))
    assert limit.kept(point(fine, rate=500))
    assert not limit.kept(point(failing, rate=500))
    assert point(failing, rate=500).errors == {"grpc-status 8": 20}
    assert not limit.kept(point(over, rate=500))
    assert point(over, rate=500).overloaded
    assert not Slo("p99", 1e-4).kept(point(fine, rate=500))


def test_a_load_that_ends_by_itself() -> None:
    meter = Meter(1, 1, TIMES)
    assert meter.add(interval(0, 0, failure="cannot connect"))
    assert meter.failure == "cannot connect"


def test_a_run_has_a_mean_size() -> None:
    assert Batches(4, 10, {}).mean == 2.5
    assert Batches(0, 0, {}).mean == 0
