"""Random schedules with workers that die at any moment: each call ends exactly once, and every block comes back."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from predictd.server.errors import InferenceError, OverloadedError
from predictd.server.transport.records import Status
from tests.fixtures.fake_worker import FakePool, FakeWorker
from tests.fixtures.frontend import doubled
from tests.fixtures.scripted_workers import Pending, Rig, play, send, settle
from tests.fixtures.tickets import Ticket

STEPS = 150
DEATHS = ("read", "claimed", "put back", "running", "completed", "cleared")


class DiedError(Exception):
    """The worker was killed between two steps."""


@dataclass
class Chaos:
    """One schedule.

    Attributes:
        carry: The pool's carry: it survives its workers.
        running: For each living worker the batch that its engine has.
    """

    rig: Rig
    pool: FakePool
    random: random.Random
    carry: list[Ticket] = field(default_factory=list)
    running: dict[int, list[Ticket]] = field(default_factory=dict)
    expected: dict[Pending, bytes] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    next_worker: int = 1

    def hire(self) -> None:
        self.rig.add_worker(self.next_worker, self.pool)
        self.next_worker += 1

    def ask(self) -> None:
        values = [float(self.random.randrange(1000)) for _ in range(2 * self.random.randint(1, 3))]
        task = send(self.rig, *values, priority=self.random.randint(0, 3))
        self.expected[task] = doubled(*values)

    def leave(self) -> None:
        waiting = [task for task in self.expected if not task.done()]
        if waiting:
            self.random.choice(waiting).cancel()

    def work(self, worker: FakeWorker, death: str) -> None:
        """One step of a worker: finish a run, or lead and start one. It may die at the given moment."""
        try:
            if worker.number in self.running:
                self._finish(worker, death)
            else:
                self._lead(worker, death)
        except DiedError:
            self.kill(worker)

    def kill(self, worker: FakeWorker) -> None:
        self.running.pop(worker.number, None)
        worker.die()
        self.hire()

    def _lead(self, worker: FakeWorker, death: str) -> None:
        window = self.carry + self.pool.read(self.random.randint(1, 20))
        self.carry = []
        _die_if(death == "read")
        gone = [one for one in window if not one.probe and self.rig.cancelled(self.pool, one)]
        worker.fail(gone, Status.CANCELLED)
        window = [one for one in window if one not in gone]
        batch: list[Ticket] = []
        for ticket in window:
            if not ticket.probe and len(batch) < 4 and not (batch and (ticket.alone or batch[0].alone)):
                batch.append(ticket)
        if batch:
            worker.hold(batch)
            self.running[worker.number] = batch
        _die_if(death == "claimed")
        rest = [one for one in window if one not in batch]
        answerable = [one for one in rest if one.probe and not _behind(one, rest)]
        self.carry = [one for one in rest if one not in answerable]
        _die_if(death == "put back")
        for probe in answerable:
            worker.return_probe(probe)
        if batch:
            worker.claims.start()

    def _finish(self, worker: FakeWorker, death: str) -> None:
        batch = self.running[worker.number]
        _die_if(death == "running")
        if self.random.random() < 0.2:
            worker.fail(batch, Status.ENGINE_FAILED, "refused by the schedule")
        else:
            worker.answer(batch)
        _die_if(death == "completed")
        worker.claims.clear()
        del self.running[worker.number]
        worker.collect_releases()
        _die_if(death == "cleared")

    def check(self) -> None:
        """Every call has ended, with its own answer or with an error that may be."""
        for task, answer in self.expected.items():
            assert task.done(), "a call was forgotten"
            if task.cancelled():
                self.ended["cancelled"] += 1
                continue
            error = task.exception()
            if error is None:
                assert task.result().outputs[0].data == answer, "somebody else's answer"
                self.ended["answered"] += 1
            else:
                assert isinstance(error, InferenceError | OverloadedError), error
                self.ended[str(error)] += 1


def _die_if(now: bool) -> None:
    if now:
        raise DiedError


def _behind(probe: Ticket, rest: list[Ticket]) -> bool:
    """Whether an older ticket of the probe's queue waits before it."""
    older = rest[: rest.index(probe)]
    return any(not one.probe and one.priority == probe.priority for one in older)


async def run_schedule(rig: Rig, seed: int) -> Counter[str]:
    draw = random.Random(seed)
    pool = rig.add_pool()
    rig.grow()
    chaos = Chaos(rig, pool, draw)
    for _ in range(draw.randint(1, 3)):
        chaos.hire()
    for _ in range(STEPS):
        match draw.choices(["ask", "leave", "work", "kill", "turn"], [40, 8, 40, 2, 10])[0]:
            case "ask":
                chaos.ask()
            case "leave":
                chaos.leave()
            case "work":
                worker = draw.choice(list(rig.workers.values()))
                chaos.work(worker, draw.choice(DEATHS) if draw.random() < 0.1 else "")
            case "kill":
                chaos.kill(draw.choice(list(rig.workers.values())))
            case "turn":
                await settle(rig, draw.randint(1, 3))
    for _ in range(3 * STEPS):
        for worker in list(rig.workers.values()):
            chaos.work(worker, "")
        await settle(rig, 3)
        if not rig.dispatcher.in_flight and all(task.done() for task in chaos.expected):
            break
    chaos.check()
    return chaos.ended


@pytest.mark.parametrize("seed", range(40))
def test_each_call_ends_exactly_once_whoever_dies_and_leaves(seed: int) -> None:
    async def scenario(rig: Rig) -> None:
        ended = await run_schedule(rig, seed)
        assert sum(ended.values()) > 0

    play(scenario, in_flight=48)


def test_the_schedules_reach_every_kind_of_end() -> None:
    """The test above would be worth little if its schedules only ever met answers."""
    ended: Counter[str] = Counter()
    retries = poison = 0
    seeds = itertools.count(100)

    async def scenario(rig: Rig) -> None:
        nonlocal retries, poison
        ended.update(await run_schedule(rig, next(seeds)))
        for one in rig.recorder.take().retries:
            retries += one.retries
            poison += one.poison

    for _ in range(12):
        play(scenario, in_flight=48)
    kinds = " ".join(ended)
    assert min(ended["answered"], ended["cancelled"], retries, poison) > 0
    assert "is not tried again" in kinds
    assert "refused by the schedule" in kinds
