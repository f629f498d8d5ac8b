"""Which requests have a line, and what it takes from their calls."""

from __future__ import annotations

import pytest

from predictd.server.config.request_log import RequestLogRule
from predictd.server.frontend.request_log import Sampler, ids

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_fraction_is_drawn() -> None:
    draws = iter((0.0, 0.2, 0.1, 0.09))
    sampler = Sampler(RequestLogRule(fraction=0.1), draw=lambda: next(draws))
    assert [sampler.takes(0.0) for _ in range(4)] == [True, False, False, True]


def test_a_rate_is_kept_over_any_time_and_saved_up_for_a_second() -> None:
    sampler = Sampler(RequestLogRule(per_second=2.0))
    assert [sampler.takes(100.0) for _ in range(4)] == [True, True, False, False]
    assert [sampler.takes(100.5) for _ in range(2)] == [True, False]
    assert sum(sampler.takes(200.0 + step / 100) for step in range(1000)) == pytest.approx(21, abs=1)


def test_less_than_one_a_second_comes_now_and_then() -> None:
    sampler = Sampler(RequestLogRule(per_second=0.1))
    assert sum(sampler.takes(step / 10) for step in range(1000)) == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ((), {}),
        ((("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),), {"trace_id": TRACE}),
        ((("traceparent", f"cc-{TRACE}-00f067aa0ba902b7-01-what-comes"),), {"trace_id": TRACE}),
        ((("traceparent", f"00-{'0' * 32}-00f067aa0ba902b7-01"),), {}),
        ((("traceparent", f"00-{TRACE}"),), {}),
        ((("traceparent", f"{TRACE}\n"),), {}),
        ((("x-request-id", "a b"), ("other", "c"), ("some-bin", b"\x00")), {"x_request_id": "a b"}),
    ],
)
def test_ids_of_a_call(metadata: tuple[tuple[str, str | bytes], ...], found: dict[str, str]) -> None:
    assert ids(metadata) == found
