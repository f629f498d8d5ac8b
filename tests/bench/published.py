"""One model under all loads, beside an echo server with as many bytes and beside its engine alone, interleaved.

A round is: one caller of the daemon, and of the echo server; callers enough to saturate the daemon, the echo server,
and the engine in a loop; then 50%, 80% and 200% of what the daemon gave, whenever they come.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tests.bench import proc
from tests.bench.daemon import Daemon, DaemonError
from tests.bench.echo_server import EchoServer
from tests.bench.load import LoadGenerator, LoadResult, Shape
from tests.bench.loops import LoopResult, plain
from tests.bench.metrics import Counters, scrape, settled
from tests.bench.payload import echo_payload, learn_answer, predict_payload
from tests.bench.reloads import ARGUMENTS, Reloads, pss_bytes, reload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from tests.bench.cases import BarePlan, Case
    from tests.bench.payload import Payload
    from tests.bench.settings import Settings
    from tests.bench.subject import Subject

OVERLOAD = 2.0
HALF, MOST_OF_IT = 0.5, 0.8
_GENERATOR = "wire"
# After an overload.
_LOOK_SECONDS = 0.2
_IDLE_SHARE = 0.1
_SETTLE_SECONDS = 30.0


@dataclass(slots=True)
class Windows:
    """Measurements of one load on one server, one a round."""

    results: list[LoadResult] = field(default_factory=list)

    def rates(self) -> list[float]:
        """Answers a second to callers, who get theirs in bursts."""
        return [each.smooth_per_second for each in self.results]

    def open_rates(self) -> list[float]:
        """Answers a second to requests that come by chance."""
        return [each.per_second for each in self.results]

    def latencies_ns(self) -> npt.NDArray[np.int64]:
        """Of all rounds."""
        return np.concatenate([each.latencies_ns for each in self.results])

    def cpu_us(self, role: str) -> float:
        """CPU time of a role for each answer, of a usual round."""
        return statistics.median(each.cpu_us(role) for each in self.results)


@dataclass(slots=True)
class Measured:
    """What the rounds gave.

    Attributes:
        tried: Each plan of the engine alone, measured once to find the best.
        best: The best.
        alone: One caller of the daemon.
        echo_alone: And of the echo server.
        most: The daemon, saturated.
        echo_most: The echo server under the same load.
        bare: The engine in a loop, with the best plan.
        half: The daemon under half of what it gave, in an open loop.
        most_of_it: Under 80%.
        overload: Under twice as much, with deadlines.
        in_time: Answers a second of the overload that kept their deadlines, over what the daemon gave.
        counted: What the daemon says of the rounds in which it was saturated.
    """

    tried: Mapping[BarePlan, LoopResult]
    best: BarePlan
    alone: Windows = field(default_factory=Windows)
    echo_alone: Windows = field(default_factory=Windows)
    most: Windows = field(default_factory=Windows)
    echo_most: Windows = field(default_factory=Windows)
    bare: list[LoopResult] = field(default_factory=list)
    half: Windows = field(default_factory=Windows)
    most_of_it: Windows = field(default_factory=Windows)
    overload: Windows = field(default_factory=Windows)
    in_time: list[float] = field(default_factory=list)
    counted: list[Counters] = field(default_factory=list)

    def wrong_counts(self) -> list[str]:
        """Differences between what clients got and what the daemon counted, in words."""
        pairs = zip(self.most.results, self.counted, strict=True)
        return [
            f"clients got {each.total} answers with status OK, the daemon counted {counted.ok}"
            for each, counted in pairs
            if each.total != counted.ok
        ]


@dataclass(frozen=True, slots=True)
class Life:
    """Time and memory of the daemon.

    Attributes:
        ready_seconds: From exec to the ready file.
        ready_bytes: Memory then.
        loaded_bytes: And after all rounds.
        reloads: And after reloads.
    """

    ready_seconds: float
    ready_bytes: int
    loaded_bytes: int
    reloads: Reloads


class _Sides:
    """Both servers, and who puts load on them."""

    def __init__(
        self, daemon: Daemon, echo: EchoServer, generator: LoadGenerator, case: Case, settings: Settings
    ) -> None:
        self.daemon = daemon
        self._echo = echo
        self._generator = generator
        self._roles = daemon.roles()
        profile = settings.profile
        self._profile = profile
        self.seconds = profile.heavy_seconds if case.heavy else profile.seconds
        self._files: dict[str, Path] = {}
        self._folder = settings.folder

    def learn(self, case: Case, payload: Payload) -> None:
        """Save what is sent to either."""
        self._files = {
            self.daemon.target: payload.save(self._folder / f"{case.name}.payload"),
            self._echo.target: echo_payload(payload).save(self._folder / f"{case.name}.echo.payload"),
        }

    def served(self, shape: Shape) -> LoadResult:
        """Put a load on the daemon."""
        return self._run(self.daemon.target, shape, self._roles)

    def echoed(self, shape: Shape) -> LoadResult:
        """Put it on the echo server."""
        return self._run(self._echo.target, shape, self._echo.roles())

    def settle(self) -> None:
        """Wait until the daemon has nothing left to do: calls that are over for clients may still wait in it."""
        until = time.monotonic() + _SETTLE_SECONDS
        while self._used_seconds() > _IDLE_SHARE * _LOOK_SECONDS:
            if time.monotonic() > until:
                raise DaemonError(f"the daemon still works {_SETTLE_SECONDS:.0f} s after its last call")

    def _used_seconds(self) -> float:
        before = sum(proc.cpu_by_role(self._roles).values())
        time.sleep(_LOOK_SECONDS)
        return sum(proc.cpu_by_role(self._roles).values()) - before

    def _run(self, target: str, shape: Shape, roles: dict[str, list[int]]) -> LoadResult:
        return self._generator.run(
            target, self._files[target], shape, self._profile, roles=lambda: roles, seconds=self.seconds
        )


def measure(case: Case, settings: Settings) -> tuple[Measured, Life]:
    """All servers are there all the time, and idle while another one is measured."""
    model = case.subject(settings.folder)
    payload = predict_payload(model, case.requests)
    tried = {plan: _try(case, model, plan, settings) for plan in (*case.plans(), *case.others())}
    best = max(case.plans(), key=lambda plan: tried[plan].per_second)
    found = Measured(tried, best)
    arguments = (*settings.daemon_arguments, *ARGUMENTS)
    with Daemon(model.path, settings.folder, arguments) as daemon:
        ready_bytes = pss_bytes(daemon)
        learn_answer(daemon.target, payload)
        with (
            EchoServer(len(daemon.roles()["front ends"]), payload.answer_bytes) as echo,
            LoadGenerator(_GENERATOR, settings.clients, settings.folder) as generator,
            plain(model, settings.folder, best.threads, best.processes, case.bare_requests) as bare,
        ):
            sides = _Sides(daemon, echo, generator, case, settings)
            sides.learn(case, payload)
            for _ in range(settings.profile.rounds):
                _closed(sides, case, found)
                found.bare.append(bare.measure(best.rows, sides.seconds))
                _open(sides, case, found)
        loaded_bytes = pss_bytes(daemon)
        reloads = reload(daemon, model, settings.profile, heavy=case.heavy)
    return found, Life(daemon.ready_seconds, ready_bytes, loaded_bytes, reloads)


def _try(case: Case, model: Subject, plan: BarePlan, settings: Settings) -> LoopResult:
    profile = settings.profile
    seconds = profile.heavy_seconds if case.heavy else profile.seconds
    with plain(model, settings.folder, plan.threads, plan.processes, case.bare_requests) as loops:
        return loops.measure(plan.rows, seconds / 2)


def _closed(sides: _Sides, case: Case, found: Measured) -> None:
    found.alone.results.append(sides.served(case.alone))
    found.echo_alone.results.append(sides.echoed(case.alone))
    before = scrape(sides.daemon.http)
    most = sides.served(case.most)
    found.counted.append(settled(sides.daemon.http, before.ok + most.total).since(before))
    found.most.results.append(most)
    found.echo_most.results.append(sides.echoed(case.most))


def _open(sides: _Sides, case: Case, found: Measured) -> None:
    capacity = statistics.median(found.most.rates())
    found.half.results.append(sides.served(case.open(HALF * capacity)))
    found.most_of_it.results.append(sides.served(case.open(MOST_OF_IT * capacity)))
    over = sides.served(case.open(OVERLOAD * capacity, case.deadline_seconds))
    found.overload.results.append(over)
    found.in_time.append(over.per_second_within(case.deadline_seconds) / capacity)
    sides.settle()
