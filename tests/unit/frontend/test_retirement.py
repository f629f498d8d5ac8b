"""A lane is finished with when every request that was routed to it is over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.frontend.retirement import Retirements


def test_a_lane_without_requests_is_idle_at_once() -> None:
    said: list[int] = []
    Retirements().when_idle(1, lambda: said.append(1))
    assert said == [1]


def test_a_lane_is_idle_after_its_last_request_and_says_so_once() -> None:
    retirements, said = Retirements(), list[str]()
    for _ in range(2):
        retirements.begin(1)
    retirements.begin(2)
    retirements.when_idle(1, lambda: said.append("first"))
    retirements.when_idle(1, lambda: said.append("second"))
    retirements.end(1)
    assert said == []
    retirements.end(2)
    assert said == []
    retirements.end(1)
    assert said == ["first", "second"]
    retirements.begin(1)
    retirements.end(1)
    assert said == ["first", "second"]


def test_a_request_that_comes_after_all_is_waited_for() -> None:
    """It was routed before the lane was taken out of the routes."""
    retirements, said = Retirements(), list[str]()
    retirements.begin(1)
    retirements.when_idle(1, lambda: said.append("idle"))
    retirements.begin(1)
    retirements.end(1)
    assert said == []
    retirements.end(1)
    assert said == ["idle"]


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "ask"]), st.integers(1, 3))))
def test_it_is_said_exactly_when_nothing_is_outstanding(steps: list[tuple[str, int]]) -> None:
    retirements = Retirements()
    active, waiting, said = dict.fromkeys((1, 2, 3), 0), dict.fromkeys((1, 2, 3), 0), list[int]()
    for what, lane in steps:
        expected = len(said)
        if what == "begin":
            active[lane] += 1
            retirements.begin(lane)
        elif what == "end" and active[lane]:
            active[lane] -= 1
            retirements.end(lane)
            if not active[lane]:
                expected += waiting[lane]
                waiting[lane] = 0
        elif what == "ask":
            retirements.when_idle(lane, lambda lane=lane: said.append(lane))  # type: ignore[misc]
            if active[lane]:
                waiting[lane] += 1
            else:
                expected += 1
        assert len(said) == expected
