"""The supervisor's looks at its children, with children that do what the test says."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from predictd.server.control.messages import Ping
from predictd.server.supervise import watching
from predictd.server.supervise.held_back import Activity
from predictd.server.supervise.limits import Limit
from predictd.server.supervise.pool import Place
from predictd.server.supervise.states import State
from predictd.server.supervise.watching import FRONTEND, WORKER, Watch
from predictd.server.transport.claims import CLAIMS_BYTES, ClaimWriter
from predictd.server.transport.memory import map_shared
from tests.fixtures.supervision import PLAN, FakeChild


class Scene:
    """One worker and one front end that serve.

    Attributes:
        claims: The worker's own side of its claim table.
        limit: Of what the worker is at work on.
        activity: What its threads are about.
    """

    def __init__(self, hang_timeout_seconds: float = 1.0) -> None:
        self.claims = ClaimWriter()
        self._table = map_shared(self.claims.fd, CLAIMS_BYTES)
        self.worker, self.frontend = FakeChild(1, "worker p 0"), FakeChild(2, "frontend 0")
        self.worker_place = Place(0, PLAN, State.SERVING, self.worker, claims=self._table)  # type: ignore[arg-type]
        self.frontend_place = Place(0, PLAN, State.SERVING, self.frontend)  # type: ignore[arg-type]
        self.limit = Limit(60.0, "run_timeout")
        self.activity: Activity | None = Activity(0.0, waits=False)
        self.watch = Watch(
            hang_timeout_seconds,
            lambda: [(self.worker_place, self.worker)],  # type: ignore[list-item]
            lambda: [(self.frontend_place, self.frontend)],  # type: ignore[list-item]
            lambda _: self.limit,
        )

    def close(self) -> None:
        self._table.close()
        self.claims._map.close()
        os.close(self.claims.fd)

    def look(self, times: int = 1, *, silent: FakeChild | None = None, stuck: bool = False) -> None:
        """Look, and have everybody answer but who is silent."""
        for _ in range(times):
            self.watch.look()
            for child in (self.worker, self.frontend):
                if child is not silent:
                    self.watch.heard(child)  # type: ignore[arg-type]
            if not stuck:
                self.claims.turn()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    one = Scene()
    monkeypatch.setattr(watching, "read_activity", lambda _: one.activity)
    yield one
    one.close()


def killed(scene: Scene) -> dict[tuple[str, str], int]:
    return {key: count for key, count in scene.watch.kills.items() if count}


def test_children_that_answer_live(scene: Scene) -> None:
    scene.look(100)
    assert not scene.worker.killed
    assert not scene.frontend.killed
    assert len(scene.worker.got(Ping)) == len(scene.frontend.got(Ping)) == 100


def test_a_silent_worker_is_asked_once_and_killed_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.look(4, silent=scene.worker)
    assert not scene.worker.killed
    scene.look(10, silent=scene.worker)
    assert scene.worker.killed
    assert len(scene.worker.got(Ping)) == 1
    assert killed(scene) == {(WORKER, "silent"): 1}
    assert [record.message for record in caplog.records] == [
        "worker p 0 (pid 100001) hangs and is killed: it has not answered for 1 s (hang_timeout)"
    ]


def test_a_front_end_has_ten_times_the_patience(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.look(40, silent=scene.frontend)
    assert not scene.frontend.killed
    scene.look(silent=scene.frontend)
    assert killed(scene) == {(FRONTEND, "silent"): 1}
    assert "it has not answered for 10 s (hang_timeout)" in caplog.text


def test_a_worker_that_answers_and_never_comes_round_is_stuck(scene: Scene) -> None:
    scene.look(4, stuck=True)
    assert not scene.worker.killed
    scene.look(stuck=True)
    assert killed(scene) == {(WORKER, "stuck"): 1}


@pytest.mark.parametrize("loading", [None, 7])
def test_a_worker_that_leaves_comes_round_or_is_killed(scene: Scene, loading: int | None) -> None:
    """Nobody hears what it still says, of a load that is over, for one."""
    scene.look()
    scene.worker_place.state, scene.worker_place.loading = State.STOPPING, loading
    scene.look(4, stuck=True)
    assert not scene.worker.killed
    scene.look(stuck=True)
    assert killed(scene) == {(WORKER, "stuck"): 1}
    assert len(scene.worker.got(Ping)) == 1, "who leaves is not asked"


def test_a_front_end_that_leaves_owes_no_answer(scene: Scene) -> None:
    scene.look(silent=scene.frontend)
    scene.frontend_place.state = State.STOPPING
    scene.look(100, silent=scene.frontend)
    assert not scene.frontend.killed


@pytest.mark.parametrize("role", [WORKER, FRONTEND])
def test_a_stopped_child_is_killed_at_the_second_look(scene: Scene, role: str) -> None:
    child = scene.worker if role == WORKER else scene.frontend
    child.stopped = True
    scene.look(silent=child)
    assert not child.killed
    scene.look(silent=child)
    assert killed(scene) == {(role, "stopped"): 1}


def test_a_run_has_the_time_that_its_lane_gives_it(scene: Scene) -> None:
    scene.limit = Limit(3.0, "run_timeout")
    scene.claims.hold(bytes(64))
    scene.claims.start()
    scene.look(12, silent=scene.worker, stuck=True)
    assert not scene.worker.killed
    scene.look(silent=scene.worker, stuck=True)
    assert killed(scene) == {(WORKER, "run_timeout"): 1}


def test_an_engine_that_is_closed_has_the_time_of_a_load(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.limit = Limit(5.0, "load_timeout")
    scene.claims.busy()
    scene.look(20, silent=scene.worker, stuck=True)
    assert not scene.worker.killed
    scene.look(silent=scene.worker, stuck=True)
    assert killed(scene) == {(WORKER, "load_timeout"): 1}
    assert "closing a model takes more than 5 s (load_timeout)" in caplog.text


def test_a_worker_that_loads_is_left_to_load_timeout(scene: Scene) -> None:
    scene.worker_place.loading = 7
    scene.look(100, silent=scene.worker, stuck=True)
    scene.worker_place.state = State.LOADING
    scene.look(100, stuck=True)
    assert not scene.worker.killed


def test_a_worker_that_loads_beside_its_run_loop_comes_round(scene: Scene) -> None:
    scene.worker_place.loading = 7
    scene.look(4, stuck=True)
    assert not scene.worker.killed
    scene.look(stuck=True)
    assert killed(scene) == {(WORKER, "stuck"): 1}


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
def test_a_child_that_starts_or_leaves_is_asked_nothing(scene: Scene, state: State) -> None:
    scene.worker_place.state = scene.frontend_place.state = state
    scene.look(100)
    assert not scene.worker.got(Ping)
    assert not scene.frontend.got(Ping)
    assert killed(scene) == {}


def test_a_worker_that_gets_no_cpu_is_not_to_blame(scene: Scene) -> None:
    scene.activity = Activity(5.0, waits=True)
    scene.look(100, silent=scene.worker)
    assert not scene.worker.killed
    scene.activity = Activity(5.0, waits=False)
    scene.look(3, silent=scene.worker)
    assert killed(scene) == {(WORKER, "silent"): 1}


def test_a_child_that_took_the_place_of_another_has_a_record_of_its_own(scene: Scene) -> None:
    scene.look(4, silent=scene.worker)
    scene.worker = FakeChild(3)
    scene.look(4, silent=scene.worker)
    assert killed(scene) == {}


def test_a_longer_hang_timeout_is_more_patience_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Scene(hang_timeout_seconds=3600.0)
    monkeypatch.setattr(watching, "read_activity", lambda _: one.activity)
    one.worker.stopped = True
    one.look(1000, silent=one.worker)
    one.close()
    assert not one.worker.killed


def test_front_ends_are_lost_when_none_answers_for_twice_the_patience(scene: Scene) -> None:
    scene.look(100)
    assert scene.watch.frontends_answer
    scene.look(80, silent=scene.frontend)
    assert scene.watch.frontends_answer
    scene.look(silent=scene.frontend)
    assert not scene.watch.frontends_answer
    scene.look()
    assert scene.watch.frontends_answer


def test_front_ends_that_have_not_answered_yet_are_not_lost(scene: Scene) -> None:
    scene.look(200, silent=scene.frontend)
    assert scene.watch.frontends_answer


def test_front_ends_that_get_no_cpu_are_not_lost(scene: Scene) -> None:
    scene.look()
    scene.activity = Activity(0.0, waits=True)
    scene.look(200, silent=scene.frontend)
    assert scene.watch.frontends_answer


def test_a_worker_that_answers_is_no_front_end(scene: Scene) -> None:
    scene.look()
    scene.look(100, silent=scene.frontend)
    assert len(scene.worker.got(Ping)) == 101
    assert not scene.watch.frontends_answer
