"""All scenarios by their names, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.bench import (
    agreement,
    cases,
    clients,
    lighter,
    mixed,
    native,
    native_costs,
    openmp,
    overload,
    published_report,
    startup,
    streams,
    tail,
    worker,
    workers,
)
from tests.bench.tiny import open_pair

if TYPE_CHECKING:
    from tests.bench.settings import Settings
    from tests.bench.table import Report
    from tests.bench.tiny import Pair


@dataclass(slots=True)
class Bench:
    """What scenarios share: the settings, and a pair of servers that is started for the first who asks.

    Attributes:
        settings: Of the run.
        stack: Stops at its end what was started.
    """

    settings: Settings
    stack: ExitStack
    _pair: Pair | None = None

    def pair(self) -> Pair:
        """The daemon with a tiny MLP and an echo server."""
        if self._pair is None:
            self._pair = self.stack.enter_context(open_pair(self.settings))
        return self._pair


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something to measure.

    Attributes:
        name: For the command line.
        run: Measures it.
        published: It is part of a run that names no scenarios.
    """

    name: str
    run: Callable[[Bench], Report]
    published: bool = True


def _alone(run: Callable[[Settings], Report]) -> Callable[[Bench], Report]:
    return lambda bench: run(bench.settings)


def _on_pair(run: Callable[[Pair, Settings], Report]) -> Callable[[Bench], Report]:
    return lambda bench: run(bench.pair(), bench.settings)


def _case(case: cases.Case) -> Callable[[Bench], Report]:
    return _alone(partial(published_report.run, case))


# Those on the pair come last: one that is open would disturb those without it.
SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("startup", _alone(startup.run)),
        *(Scenario(case.name, _case(case)) for case in cases.PUBLISHED.values()),
        *(Scenario(case.name, _case(case), published=False) for case in cases.FURTHER.values()),
        Scenario("mixed", _alone(mixed.run)),
        Scenario("overload", _alone(overload.run)),
        Scenario("tail", _alone(tail.run)),
        Scenario("worker", _alone(worker.run)),
        Scenario("workers", _alone(workers.run), published=False),
        Scenario("openmp", _alone(openmp.run), published=False),
        Scenario("optimize", _alone(lighter.run), published=False),
        Scenario("native", _alone(native.run), published=False),
        Scenario("native-costs", _alone(native_costs.run), published=False),
        Scenario("agreement", _alone(agreement.run)),
        Scenario("clients", _on_pair(clients.run)),
        Scenario("streams", _on_pair(streams.run)),
    )
}
