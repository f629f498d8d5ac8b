"""A model is served by another engine while its own builds what it runs, and then by its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from predictd.server.config.settings import Settings
from predictd.server.control.messages import (
    AddLanes,
    Hello,
    LaneFailed,
    LaneLoaded,
    LaneLoading,
    RetireLane,
    Warm,
)
from predictd.server.control.publication import PublishModel
from predictd.server.supervise.stand_in import stand_in
from predictd.server.transport.abi import ABI_VERSION
from tests.fixtures.keeping import SIGNATURE, House, turns
from tests.fixtures.supervision import FakeChild, Nursery, found

OWN, STAND_IN = 1, 2


class Scene(House):
    """A daemon with one model, its own worker, and that of the stand-in."""

    def __init__(self, nursery: Nursery) -> None:
        super().__init__(nursery, 1, 1, engine="tensorrt", while_building="onnxruntime")
        self.own, self.other = nursery.titled("worker")
        self.listen(self.frontend)

    def lanes(self) -> dict[int, str]:
        return {record.config.lane: record.state for record in self.supervisor.catalog.records()}

    def view(self) -> tuple[int, str, str]:
        """What clients are told of the version: lane, state and reason."""
        (view,) = self.frontend.got(PublishModel)[-1].versions
        return view.lane, view.state, view.reason

    def begin(self) -> None:
        """Its own worker builds, the stand-in is ready."""
        self.own.says(Hello(pid=1, abi=ABI_VERSION))
        self.own.says(LaneLoading(lane=OWN))
        self.own.says(LaneLoading(lane=OWN, progress="42% done"))
        self.serve(self.other, STAND_IN)


def play(nursery: Nursery, scenario: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        scene = Scene(nursery)
        try:
            await scenario(scene)
            assert scene.supervisor.fatal is None
        finally:
            await scene.close()

    asyncio.run(run())


def engine_of(child: FakeChild) -> str:
    (message,) = child.got(AddLanes)
    (lane,) = message.lanes
    return lane.engine


def test_the_stand_in_serves_and_goes_when_the_own_engine_is_ready(nursery: Nursery) -> None:
    async def scenario(scene: Scene) -> None:
        assert not scene.supervisor.ready
        scene.begin()
        assert (engine_of(scene.own), engine_of(scene.other)) == ("tensorrt", "onnxruntime")
        assert scene.supervisor.ready, "what is built keeps nobody waiting"
        assert scene.view() == (STAND_IN, "READY", "onnxruntime serves meanwhile; tensorrt: 42% done")
        scene.supervisor.keeper.reconcile()
        assert scene.lanes() == {OWN: "LOADING", STAND_IN: "READY"}

        scene.own.says(LaneLoaded(lane=OWN, signature=SIGNATURE, load_seconds=1, warmup_seconds=1))
        scene.own.says(Warm())
        scene.acknowledge()
        await turns()
        assert scene.lanes() == {OWN: "READY", STAND_IN: "UNLOADING"}
        assert scene.view() == (OWN, "READY", "")
        assert [message.lane for message in scene.frontend.got(RetireLane)] == [STAND_IN]

    play(nursery, scenario)


def test_the_stand_in_serves_on_when_the_own_engine_fails(nursery: Nursery) -> None:
    async def scenario(scene: Scene) -> None:
        scene.begin()
        scene.own.says(LaneFailed(lane=OWN, reason="no such operator"))
        scene.own.says(Warm())
        await turns()
        assert scene.lanes() == {OWN: "FAILED", STAND_IN: "READY"}
        assert scene.view() == (
            STAND_IN,
            "READY",
            "onnxruntime serves on, as tensorrt failed: no such operator",
        )
        assert scene.supervisor.ready

    play(nursery, scenario)


def test_a_build_that_fails_first_does_not_take_the_stand_in_with_it(nursery: Nursery) -> None:
    async def scenario(scene: Scene) -> None:
        scene.own.says(Hello(pid=1, abi=ABI_VERSION))
        scene.own.says(LaneFailed(lane=OWN, reason="no such operator"))
        scene.own.says(Warm())
        assert not scene.supervisor.settled
        scene.serve(scene.other, STAND_IN)
        assert scene.supervisor.ready
        assert scene.view()[:2] == (STAND_IN, "READY")

    play(nursery, scenario)


def test_a_plan_that_is_there_already_makes_the_stand_in_needless(nursery: Nursery) -> None:
    async def scenario(scene: Scene) -> None:
        scene.serve(scene.own, OWN)
        await turns()
        assert scene.supervisor.ready
        assert OWN in scene.lanes()
        assert scene.lanes().get(STAND_IN) in (None, "UNLOADING")
        assert scene.view()[:2] == (OWN, "READY")

    play(nursery, scenario)


def test_each_sign_that_a_load_goes_on_gives_it_its_time_anew(nursery: Nursery) -> None:
    async def scenario(scene: Scene) -> None:
        scene.own.says(Hello(pid=1, abi=ABI_VERSION))
        ends = []
        for progress in ("", "1% done", "2% done"):
            scene.own.says(LaneLoading(lane=OWN, progress=progress))
            ends.append(scene.supervisor._workers._deadlines._timers[scene.own.id].when())
            await turns()
        assert ends == sorted(set(ends)), "each later than the one before"
        (lane,) = [gauge for gauge in scene.supervisor.readiness().lanes if gauge.model == "m1"]
        assert (lane.state, lane.reason) == ("LOADING", "2% done")

    play(nursery, scenario)


def test_only_what_has_to_be_built_has_a_stand_in() -> None:
    settings = Settings(engine="tensorrt", while_building="onnxruntime")
    model = found("m", parameters={"precision": "fp16"}, device="1")
    (version,) = model.versions
    substitute = stand_in(model, version, settings)
    assert substitute is not None
    file = substitute.file
    assert (file.engine, file.parameters, file.device) == ("onnxruntime", {}, None)
    plan = replace(version, path=version.path.with_suffix(".plan"))
    assert stand_in(model, plan, settings) is None
    assert stand_in(model, version, Settings(engine="tensorrt")) is None
    assert stand_in(model, version, Settings(while_building="onnxruntime")) is None
    assert stand_in(found("m", while_building="none"), version, settings) is None
    assert stand_in(found("m", swap="resource"), version, settings) is None
    own = found("m", engine="tensorrt", while_building="onnxruntime")
    assert stand_in(own, version, Settings()) is not None
