from __future__ import annotations

import pytest

from predictd.server.observe.aggregate import Aggregate, Served
from predictd.server.observe.deltas import WaitingSeries
from predictd.server.observe.history import (
    IDLE,
    MODELS_PER_POINT_MAX,
    POINTS_MAX,
    WINDOW_TALLIES,
    History,
)
from predictd.server.observe.recorder import FrontendRecorder

MS = 1_000_000


class Scene:
    """A history of an aggregate, looked at every two seconds."""

    def __init__(self, **lanes: int) -> None:
        self.aggregate = Aggregate()
        for model, lane in lanes.items():
            self.aggregate.name_lane(lane, model, 1)
        self.history = History(0.0)
        self.seconds = 0.0

    def serve(self, lane: int | None, number: int, *, status: str = "OK", total_ns: int = MS) -> None:
        recorder = FrontendRecorder()
        for _ in range(number):
            if lane is not None and status == "OK":
                recorder.answered(lane, "oip", status, total_ns, 1000, 1000, 1)
            else:
                recorder.failed(lane, "oip", status, total_ns)
        self.aggregate.add_frontend(recorder.take(), 1)

    def look(self, in_flight: int = 0) -> None:
        self.seconds += 2.0
        self.history.look(
            self.aggregate,
            self.seconds,
            unix_seconds=1e9 + self.seconds,
            in_flight=in_flight,
        )


def test_a_point_is_what_came_since_the_look_before() -> None:
    scene = Scene(a=1)
    scene.serve(1, 10)
    scene.serve(1, 4, status="INTERNAL")
    waiting = [WaitingSeries(1, 1, 2, 9), WaitingSeries(1, 2, 1, 5)]
    scene.aggregate.waits(1, waiting)
    scene.look(in_flight=5)
    scene.look()
    first, second = scene.history.points()
    assert (first.total.requests_per_second, first.total.errors_per_second) == (5.0, 2.0)
    assert (first.unix_seconds, first.waiting, first.in_flight) == (1e9 + 2, 3, 5)
    assert first.models == {"a": first.total}
    assert second.total == IDLE
    assert second.models == {}


def test_quantiles_are_those_of_requests_that_ended_well() -> None:
    scene = Scene(a=1)
    scene.serve(1, 99, total_ns=MS)
    scene.serve(1, 1, total_ns=400 * MS)
    scene.serve(1, 1000, status="RESOURCE_EXHAUSTED", total_ns=1)
    scene.look()
    (point,) = scene.history.points()
    p50, p99, p999 = point.total[2:]
    assert p50 is not None and p99 is not None and p999 is not None
    assert 0.5e-3 < p50 <= 1e-3
    assert p99 == pytest.approx(1e-3)
    assert 0.3 < p999 <= 0.5


def test_now_is_of_the_last_looks_together() -> None:
    scene = Scene(a=1, b=2)
    scene.serve(1, 1000)
    scene.look()
    for _ in range(WINDOW_TALLIES):
        scene.serve(2, 4)
        scene.look()
    assert scene.history.now().requests_per_second == pytest.approx(2.0)
    assert scene.history.now_by_version().keys() == {Served("b", 1)}
    assert scene.history.now_by_version()[Served("b", 1)] == scene.history.now()


def test_requests_for_unknown_models_count_in_total_only() -> None:
    scene = Scene()
    scene.serve(None, 6, status="NOT_FOUND")
    scene.look()
    (point,) = scene.history.points()
    assert point.total.errors_per_second == 3.0
    assert point.models == {}
    assert scene.history.now_by_version() == {}


def test_a_version_that_was_forgotten_begins_again() -> None:
    scene = Scene(a=1)
    scene.serve(1, 10)
    scene.look()
    scene.aggregate.forget_lane(1)
    scene.aggregate.name_lane(2, "a", 1)
    scene.serve(2, 4)
    scene.look()
    assert scene.history.points()[-1].total.requests_per_second == 2.0


def test_what_is_kept_is_bounded() -> None:
    scene = Scene(**{f"m{lane}": lane for lane in range(1, 2 * MODELS_PER_POINT_MAX)})
    for lane in range(1, 2 * MODELS_PER_POINT_MAX):
        scene.serve(lane, lane)
    for _ in range(2 * POINTS_MAX):
        scene.look()
        if len(scene.history.points()) == 1:
            kept = scene.history.points()[0].models
            assert len(kept) == MODELS_PER_POINT_MAX
            assert f"m{2 * MODELS_PER_POINT_MAX - 1}" in kept
            assert "m1" not in kept
    assert len(scene.history.points()) == POINTS_MAX


def test_two_looks_at_one_moment_are_one() -> None:
    scene = Scene(a=1)
    scene.look()
    scene.serve(1, 2)
    scene.seconds -= 2.0
    scene.look()
    assert len(scene.history.points()) == 1
    scene.look()
    assert scene.history.points()[-1].total.requests_per_second == 1.0
