"""Keeping front ends alive, with children that die when the test says so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from predictd.server.access.rules import AccessRules
from predictd.server.config.request_log import RequestLogRule
from predictd.server.config.settings import Settings
from predictd.server.control.messages import (
    Ack,
    AnyMessage,
    AttachPool,
    Drain,
    Drained,
    FrontendInit,
    Hello,
    Listen,
    Listening,
    Ready,
    Stop,
    Warm,
)
from predictd.server.control.publication import LaneView, PublishModel
from predictd.server.supervise.child import Child
from predictd.server.supervise.credentials import Credentials
from predictd.server.supervise.frontend_init import FrontendSettings
from predictd.server.supervise.frontends import Frontends
from predictd.server.supervise.pool import Pool
from predictd.server.supervise.states import RestartPolicy, State
from predictd.server.supervise.wiring import Wiring
from tests.fixtures.supervision import PLAN, FakeChild, Nursery

CONNECTIONS = Settings().connections
PUBLICATION = PublishModel(
    seq=0, name="m", default_version=1, versions=[LaneView(version=1, state="LOADING")]
)
Scenario = Callable[["Desk"], Coroutine[Any, Any, None]]


class Desk:
    """Front ends with everything around them that is not a process."""

    def __init__(self, nursery: Nursery, number: int) -> None:
        self.nursery = nursery
        self.reasons: list[str] = []
        self.gone: list[int] = []
        self.changes = 0
        self.ready = False
        self.wiring = Wiring(self._mapped, lambda _: None)
        self.frontends = Frontends(
            FrontendSettings(
                False,
                ("127.0.0.1:1",),
                Path("/run/predictd.sock"),
                1 << 20,
                10**9,
                1 << 20,
                1 << 22,
                1 << 21,
                0,
                3,
                CONNECTIONS,
                False,
                AccessRules(),
                b"secret",
                RequestLogRule(),
                "info",
                {"LANG": "C"},
            ),
            (PLAN,) * number,
            self.wiring,
            itertools.count(1).__next__,
            publications=lambda: [PUBLICATION],
            credentials=Credentials(Settings()),
            is_ready=lambda: self.ready,
            give_up=self.reasons.append,
            on_message=self._heard,
            on_change=self._change,
            on_gone=lambda child: self.gone.append(child.id),
        )
        self.frontends._policy = RestartPolicy(first_delay_seconds=0, longest_delay_seconds=0)

    def _mapped(self, child: int) -> None:
        self.frontends.mapped(child)

    def _change(self) -> None:
        self.changes += 1

    def _heard(self, child: Child, message: AnyMessage, _: list[int]) -> None:
        match message:
            case Hello():
                self.frontends.hello(child)
            case Ack(seq=seq):
                self.wiring.acknowledged(seq)
            case _:
                self.frontends.handle(child, message)

    def listen(self, child: FakeChild) -> FakeChild:
        child.says(Hello(pid=child.pid, abi=1))
        child.says(Listening())
        return child

    async def die(self, child: FakeChild, status: int = -9) -> FakeChild:
        child.exits(status)
        for _ in range(5):
            await asyncio.sleep(0)
        return self.nursery.last

    def states(self) -> list[State]:
        return [place.state for place in self.frontends.places]

    def close(self) -> None:
        self.frontends.stop()
        alive = {child.id for _, child in self.frontends.children()}
        for child in self.nursery.children:
            if child.id in alive:
                child.exits(0)
        self.wiring.close()
        self.nursery.children.clear()


def play(nursery: Nursery, scenario: Scenario, number: int = 1) -> None:
    async def run() -> None:
        desk = Desk(nursery, number)
        desk.frontends.start()
        try:
            await scenario(desk)
        finally:
            desk.close()

    asyncio.run(run())


def test_only_the_first_front_end_has_the_unix_socket(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        first, second = desk.nursery.children
        assert desk.listen(first).got(FrontendInit)[0].unix == "/run/predictd.sock"
        assert desk.listen(second).got(FrontendInit)[0].unix == ""
        again = await desk.die(first)
        assert desk.listen(again).got(FrontendInit)[0].unix == "/run/predictd.sock"

    play(nursery, scenario, number=2)


def test_a_front_end_is_told_who_it_is_all_models_and_to_listen(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        child = nursery.last
        assert (child.title, child.environment["LANG"]) == ("frontend 0", "C")
        child.says(Hello(pid=child.pid, abi=1))
        kinds = [type(message) for message, _ in child.sent]
        assert kinds == [FrontendInit, PublishModel, Ready, Listen]
        init = child.got(FrontendInit)[0]
        pipe = desk.frontends.places[0].pipe
        assert pipe is not None
        assert (init.frontend, init.in_flight_limit) == (child.id, pipe.records // 2)
        assert (desk.states(), desk.frontends.any_listening) == ([State.MAPPING], False)
        child.says(Listening())
        assert (desk.states(), desk.frontends.all_listening, desk.changes) == ([State.SERVING], True, 1)

    play(nursery, scenario)


def test_a_port_is_opened_once_however_often_the_wiring_is_completed(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        child = nursery.last
        child.says(Hello(pid=child.pid, abi=1))
        pools = [Pool(number, f"p{number}", (PLAN,), 64) for number in (1, 2)]
        for pool in pools:
            desk.wiring.add_pool(pool)
            child.says(Ack(seq=child.got(AttachPool)[-1].seq))
        assert child.got(Listen) == [Listen()]

    play(nursery, scenario)


def test_a_front_end_listens_only_when_its_wiring_is_acknowledged(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        desk.wiring.add_pool(Pool(1, "p", (PLAN,), 64))
        child = nursery.last
        child.says(Hello(pid=child.pid, abi=1))
        assert child.got(Listen) == []
        child.says(Ack(seq=child.got(AttachPool)[0].seq))
        assert child.got(Listen) == [Listen()]

    play(nursery, scenario)


def test_all_that_are_wired_hear_the_news(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        first, second = nursery.children
        desk.listen(first)
        desk.frontends.send_all(Ready(ready=True))
        assert first.got(Ready) == [Ready(ready=False), Ready(ready=True)]
        assert second.sent == []
        assert (desk.frontends.any_listening, desk.frontends.all_listening) == (True, False)

    play(nursery, scenario, number=2)


def test_a_dead_front_end_comes_back_as_a_new_incarnation(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        first = desk.listen(nursery.last)
        desk.ready = True
        second = await desk.die(first)
        assert (second.id, second.title, desk.gone) == (2, "frontend 0", [1])
        desk.listen(second)
        assert second.got(Ready) == [Ready(ready=True)]
        assert second.got(Listen) == [Listen()]
        assert desk.frontends.places[0].restarts == 1
        assert desk.reasons == []
        assert not desk.frontends.cut_off

    play(nursery, scenario)


def test_a_front_end_that_never_gets_to_serve_ends_the_daemon(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        for number in range(5):
            assert (desk.reasons, len(nursery.children)) == ([], number + 1)
            await desk.die(nursery.last, 1)
        assert desk.reasons == ["front end 0 died 5 times in a row: exit status 1"]
        assert (len(nursery.children), desk.states()) == (5, [State.FAILED])

    play(nursery, scenario)


def test_a_front_end_that_served_always_comes_back(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        for _ in range(9):
            await desk.die(desk.listen(nursery.last))
        assert (desk.reasons, len(nursery.children)) == ([], 10)

    play(nursery, scenario)


def test_a_front_end_that_cannot_be_started_is_tried_again_and_ends_the_daemon(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        nursery.refuse = OSError(24, "Too many open files")
        await desk.die(nursery.last)
        for _ in range(20):
            await asyncio.sleep(0)
        assert desk.states() == [State.FAILED]
        assert desk.reasons == [
            "front end 0 died 5 times in a row: it cannot be started: Too many open files"
        ]

    play(nursery, scenario)


# Draining -----------------------------------------------------------------------------------------------------


def test_a_drain_is_over_when_all_that_listen_say_so(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        first, second, _ = nursery.children
        desk.listen(first)
        desk.listen(second)
        desk.frontends.drain(1, 2)
        assert first.got(Drain) == second.got(Drain) == [Drain(lame_duck_ns=1, grace_ns=2)]
        assert not desk.frontends.all_drained
        first.says(Drained(complete=True))
        assert not desk.frontends.all_drained
        second.says(Drained(complete=True))
        assert (desk.frontends.all_drained, desk.frontends.cut_off) == (True, False)

    play(nursery, scenario, number=3)


def test_a_front_end_that_opens_its_port_during_a_drain_is_drained_too(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        child = nursery.last
        child.says(Hello(pid=child.pid, abi=1))
        desk.frontends.drain(1, 2)
        assert desk.frontends.all_drained
        child.says(Listening())
        assert child.got(Drain) == [Drain(lame_duck_ns=1, grace_ns=2)]
        assert not desk.frontends.all_drained

    play(nursery, scenario)


def test_requests_that_were_cut_off_are_told_of(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        first, second = (desk.listen(child) for child in nursery.children)
        desk.frontends.drain(1, 2)
        first.says(Drained(complete=False))
        second.says(Drained(complete=True))
        assert (desk.frontends.all_drained, desk.frontends.cut_off) == (True, True)

    play(nursery, scenario, number=2)


@pytest.mark.parametrize("drained", [True, False])
def test_a_front_end_that_dies_in_a_drain_is_not_replaced_and_its_requests_are_lost(
    nursery: Nursery, drained: bool
) -> None:
    async def scenario(desk: Desk) -> None:
        child = desk.listen(nursery.last)
        desk.frontends.drain(1, 2)
        if drained:
            child.says(Drained(complete=True))
        await desk.die(child)
        assert (len(nursery.children), desk.states()) == (1, [State.STOPPED])
        assert (desk.frontends.all_drained, desk.frontends.cut_off) == (True, not drained)
        assert desk.gone == [child.id]

    play(nursery, scenario)


def test_a_front_end_that_waits_for_its_restart_stays_away_from_a_drain(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        desk.listen(nursery.last).exits(-9)
        desk.frontends.drain(1, 2)
        for _ in range(5):
            await asyncio.sleep(0)
        assert (len(nursery.children), desk.states()) == (1, [State.BACKOFF])
        assert not desk.frontends.cut_off

    play(nursery, scenario)


def test_those_at_work_are_asked_to_stop_and_those_that_only_start_are_killed(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        starting, serving = nursery.children
        desk.listen(serving)
        desk.frontends.stop()
        assert (starting.killed, starting.got(Stop)) == (True, [])
        assert (serving.killed, serving.got(Stop)) == (False, [Stop()])
        starting.says(Hello(pid=1, abi=1))
        assert starting.sent == []
        for child in (starting, serving):
            await desk.die(child, 0)
        assert desk.states() == [State.STOPPED] * 2

    play(nursery, scenario, number=2)


def test_those_that_are_killed_are_not_started_again(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        child = desk.listen(nursery.last)
        desk.frontends.kill()
        assert child.killed
        await desk.die(child)
        assert (len(nursery.children), desk.states()) == (1, [State.STOPPED])

    play(nursery, scenario)


def test_a_message_that_no_front_end_sends_is_a_bug(nursery: Nursery) -> None:
    async def scenario(desk: Desk) -> None:
        assert desk.gone == []
        with pytest.raises(TypeError, match=r"^a front end sent Warm. This is a bug.$"):
            nursery.last.says(Warm())

    play(nursery, scenario)
