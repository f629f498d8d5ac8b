"""Drives client processes, and reads everybody's CPU time while they are at work."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from tests.bench import proc
from tests.bench.children import Child
from tests.bench.client import Command, Outcome, Ready

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.bench.settings import Profile

_START_SECONDS = 20.0
_ANSWER_SECONDS = 40.0
_CONNECT_SECONDS = 0.15
_CLIENT = "client "
# Odd, so that over time every distinct request is verified.
VERIFY_EVERY = 61

Roles = Callable[[], Mapping[str, Sequence[int]]]


class LoadError(Exception):
    """Requests failed or were answered wrongly: the numbers would mean nothing."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the load looks.

    Attributes:
        connections: Of all client processes together.
        in_flight: Calls on each of them, in a closed loop.
        verify_every: Of so many answers one is compared with the expected one.
        rate: Of an open loop, a second, whose calls may be refused; 0 for a closed one.
        deadline_seconds: Of each call in an open loop; 0 for none.
    """

    connections: int
    in_flight: int
    verify_every: int = VERIFY_EVERY
    rate: float = 0.0
    deadline_seconds: float = 0.0

    @property
    def callers(self) -> int:
        return self.connections * self.in_flight


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One measurement.

    Attributes:
        seconds: Length of the window.
        completed: Answers inside it.
        total: Answers inside and around it: what the server must have counted too.
        verified: Answers that were compared with the expected ones.
        smooth_per_second: Throughput with a window that fades in and out, so that it does not matter where in
            a burst of answers the window began or ended.
        latencies_ns: Of the answers inside the window.
        indexes: Which of the payload's requests each of them answers.
        refused: Calls that had no time or no room.
        late_seconds: How late a call of an open loop left at most.
        cpu_seconds: CPU time of each role inside the window, `clients` among them.
        busiest_client: The largest share of a CPU that one client process used.
        machine_cpu_seconds: CPU time of all processes of the machine inside the window.
    """

    seconds: float
    completed: int
    total: int
    verified: int
    smooth_per_second: float
    latencies_ns: npt.NDArray[np.int64]
    indexes: npt.NDArray[np.int64]
    refused: int
    late_seconds: float
    cpu_seconds: Mapping[str, float]
    busiest_client: float
    machine_cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Throughput."""
        return self.completed / self.seconds

    def percentile_us(self, percent: float) -> float:
        """Latency that so many percent of the answers did not exceed."""
        return float(np.percentile(self.latencies_ns, percent)) / 1e3

    def per_second_within(self, seconds: float) -> float:
        """Answers that took no longer than this."""
        return float(np.count_nonzero(self.latencies_ns <= seconds * 1e9)) / self.seconds

    def cpu_us(self, role: str) -> float:
        """CPU time of a role for each answer."""
        return self.cpu_seconds.get(role, 0.0) / max(1, self.completed) * 1e6

    @property
    def foreign_cpus(self) -> float:
        """CPUs that were busy with what is none of ours."""
        return max(0.0, self.machine_cpu_seconds - sum(self.cpu_seconds.values())) / self.seconds


class LoadGenerator:
    """Client processes of one kind, which live over all measurements."""

    def __init__(self, kind: str, processes: int, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._stack = ExitStack()
        self._clients = [
            self._stack.enter_context(Child("tests.bench.client", kind)) for _ in range(processes)
        ]
        try:
            for client in self._clients:
                client.hear(Ready, _START_SECONDS)
        except BaseException:
            self._stack.close()
            raise

    def run(
        self,
        target: str,
        payload: Path,
        shape: Shape,
        profile: Profile,
        *,
        roles: Roles,
        seconds: float | None = None,
    ) -> LoadResult:
        """Connect, warm up, measure once, for `seconds` where the profile's are not enough."""
        clients = self._clients[: shape.connections]
        begin_ns = time.monotonic_ns() + int((profile.warmup_seconds + _CONNECT_SECONDS) * 1e9)
        end_ns = begin_ns + int((profile.seconds if seconds is None else seconds) * 1e9)
        files = [self._folder / f"times-{client.pid}.npy" for client in clients]
        for number, (client, file) in enumerate(zip(clients, files, strict=True)):
            share = len(range(number, shape.connections, len(clients)))
            command = Command(
                target=target,
                payload=str(payload),
                connections=share,
                in_flight=shape.in_flight,
                rate=shape.rate,
                deadline_ns=round(shape.deadline_seconds * 1e9),
                part=number,
                parts=len(clients),
                start_ns=begin_ns - round(profile.warmup_seconds * 1e9),
                begin_ns=begin_ns,
                end_ns=end_ns,
                verify_every=shape.verify_every,
                times=str(file),
            )
            client.tell(command)
        pids = {**roles(), **{f"{_CLIENT}{client.pid}": [client.pid] for client in clients}}
        before = _sample_at(begin_ns, pids)
        after = _sample_at(end_ns, pids)
        outcomes = [client.hear(Outcome, _ANSWER_SECONDS) for client in clients]
        times = np.concatenate([np.load(file) for file in files], axis=1)
        where = f"{self.kind} client, {target}"
        # Under overload there may be nothing but refusals, and that is a result.
        if problems := _problems(outcomes, where, may_be_none=shape.deadline_seconds > 0):
            raise LoadError("; ".join(problems))
        return _result(before, after, outcomes, times)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


@dataclass(frozen=True, slots=True)
class _Sample:
    at_ns: int
    cpu_seconds: Mapping[str, float]
    machine_cpu_seconds: float


def _sample_at(at_ns: int, pids: Mapping[str, Sequence[int]]) -> _Sample:
    time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
    return _Sample(time.monotonic_ns(), proc.cpu_by_role(pids), proc.machine_busy_seconds())


def _smooth_per_second(ends_ns: npt.NDArray[np.int64], begin_ns: int, end_ns: int) -> float:
    phase = (ends_ns - begin_ns) / (end_ns - begin_ns)
    # Bounds are the planned ones, and the samples were taken some microseconds later.
    weights = np.sin(np.pi * np.clip(phase, 0, 1)) ** 2
    return float(weights.sum()) * 2 / (end_ns - begin_ns) * 1e9


def _problems(outcomes: Sequence[Outcome], where: str, *, may_be_none: bool) -> list[str]:
    errors: Counter[str] = Counter()
    for outcome in outcomes:
        errors.update(outcome.errors)
    problems = [f"{count} times {reason} ({where})" for reason, count in errors.items()]
    if wrong := sum(outcome.wrong for outcome in outcomes):
        problems.append(f"{wrong} wrong answers ({where})")
    if not may_be_none and not any(outcome.completed for outcome in outcomes):
        problems.append(f"no answer inside the window ({where})")
    return problems


def _result(
    before: _Sample,
    after: _Sample,
    outcomes: Sequence[Outcome],
    times: npt.NDArray[np.int64],
) -> LoadResult:
    seconds = (after.at_ns - before.at_ns) / 1e9
    used = {role: after.cpu_seconds[role] - cpu for role, cpu in before.cpu_seconds.items()}
    clients = [used.pop(role) for role in list(used) if role.startswith(_CLIENT)]
    return LoadResult(
        seconds=seconds,
        completed=sum(outcome.completed for outcome in outcomes),
        total=sum(outcome.total for outcome in outcomes),
        verified=sum(outcome.verified for outcome in outcomes),
        smooth_per_second=_smooth_per_second(times[2], before.at_ns, after.at_ns),
        latencies_ns=times[1],
        indexes=times[0],
        refused=sum(outcome.refused for outcome in outcomes),
        late_seconds=max(outcome.late_ns for outcome in outcomes) / 1e9,
        cpu_seconds={**used, "clients": sum(clients)},
        busiest_client=max(clients) / seconds,
        machine_cpu_seconds=after.machine_cpu_seconds - before.machine_cpu_seconds,
    )
