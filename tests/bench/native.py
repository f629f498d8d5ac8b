"""The native front end beside the grpcio one and the bare echo, with h2load as the client, all three by turns.

h2load costs little, so that what is measured is the server; how much is told, as it shares the CPUs.
"""

from __future__ import annotations

import resource
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.server.supervise.carrier import native_problem
from tests.bench import h2load, proc
from tests.bench.daemon import Daemon
from tests.bench.echo_server import EchoServer
from tests.bench.load import Shape
from tests.bench.metrics import scrape, settled
from tests.bench.payload import echo_payload, learn_answer, predict_payload
from tests.bench.subject import Subject, echoing, mlp
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.bench.payload import Payload
    from tests.bench.settings import Settings

NATIVE, GRPCIO, ECHO = "native", "grpcio", "echo"
_PROBE_REQUESTS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """A load, and what is promised of it.

    Attributes:
        name: In words.
        shape: Of the load.
        over: Beside which server the aim stands.
        aim: Requests a second over those of the other; or, with one caller, the time of one.
    """

    name: str
    shape: Shape
    over: str
    aim: float

    @property
    def alone(self) -> bool:
        """One caller, who is interested in how long it takes."""
        return self.shape.connections * self.shape.in_flight == 1


# A run of 128 rows takes 18 µs: nothing speaks against what is in flight at 8 x 16 being one batch.
TINY_ARGUMENTS = ("--max-batch-size", "128")
TINY = (
    Case("tiny MLP, 8 x 16", Shape(8, 16), ECHO, 25.0),
    Case("tiny MLP, 1 x 1", Shape(1, 1), ECHO, 0.4),
    Case("tiny MLP, 32 x 1", Shape(32, 1), ECHO, 8.0),
)
LARGE = {
    64 * 1024: Case("64 KB in and out, 4 x 8", Shape(4, 8), GRPCIO, 3.0),
    600 * 1024: Case("600 KB in and out, 4 x 4", Shape(4, 4), GRPCIO, 1.5),
}


@dataclass(frozen=True, slots=True)
class _Server:
    """A server that is driven.

    Attributes:
        target: Its address.
        payload: What it is sent.
        roles: Process ids.
        http: Where a daemon's metrics are; None for the echo.
    """

    target: str
    payload: Payload
    roles: Callable[[], Mapping[str, Sequence[int]]]
    http: str | None


def run(settings: Settings) -> Report:
    """The tiny model under three loads, and two sizes that are all transport."""
    report = Report()
    if problem := native_problem():
        report.problems.append(f"{problem}: the native front end is not measured")
        return report
    if not h2load.installed():
        report.problems.append("h2load is not installed: the native front end is not measured")
        return report
    report.add(_measure(mlp(_folder(settings, "tiny")), TINY, settings, TINY_ARGUMENTS))
    for size_bytes, case in LARGE.items():
        subject = echoing(_folder(settings, str(size_bytes)), size_bytes)
        report.add(_measure(subject, (case,), settings, ()))
    return report


def _folder(settings: Settings, name: str) -> Path:
    folder = settings.folder / f"native-{name}"
    folder.mkdir()
    return folder


def _measure(subject: Subject, cases: Sequence[Case], settings: Settings, arguments: Sequence[str]) -> Report:
    report = Report()
    with ExitStack() as stack:
        servers = _start(subject, settings, stack, arguments)
        for case in cases:
            report.add(_case(case, servers, settings))
    return report


def _start(
    subject: Subject, settings: Settings, stack: ExitStack, more: Sequence[str]
) -> Mapping[str, _Server]:
    servers: dict[str, _Server] = {}
    payload = predict_payload(subject, 1)
    for kind in (NATIVE, GRPCIO):
        folder = settings.folder / f"{subject.path.parent.name}-{kind}"
        folder.mkdir()
        arguments = (*settings.daemon_arguments, "--frontend", kind, *more)
        daemon = stack.enter_context(Daemon(subject.path, folder, arguments))
        # A shape that is new comes to Python first, and again where there is no memory for it yet.
        for _ in range(3):
            learn_answer(daemon.target, payload)
        servers[kind] = _Server(daemon.target, payload, daemon.roles, daemon.http)
    echoed = echo_payload(payload)
    frontends = len(servers[NATIVE].roles()["front ends"])
    echo = stack.enter_context(EchoServer(frontends, payload.answer_bytes))
    learn_answer(echo.target, echoed)
    servers[ECHO] = _Server(echo.target, echoed, echo.roles, None)
    return servers


def _case(case: Case, servers: Mapping[str, _Server], settings: Settings) -> Report:
    report = Report()
    rates: dict[str, list[float]] = {kind: [] for kind in servers}
    costs: dict[str, list[_Costs]] = {kind: [] for kind in servers}
    for _ in range(settings.profile.rounds):
        for kind, server in servers.items():
            rate, cost, problem = _once(case.shape, server, settings)
            rates[kind].append(rate)
            costs[kind].append(cost)
            report.problems += [f"{case.name}, {kind}: {problem}"] if problem else []
    over, of = (rates[case.over], rates[NATIVE]) if case.alone else (rates[NATIVE], rates[case.over])
    what = "time of a request" if case.alone else "requests/s"
    report.ratios.append(
        Ratio(
            f"{case.name}: {what}, native over {case.over}",
            ratio_of_rounds(over, of),
            case.aim,
            "below" if case.alone else "above",
        )
    )
    rows = [
        (
            f"{case.name}, {kind}",
            Spread.of(rates[kind]).text(0),
            f"{1e6 * case.shape.connections * case.shape.in_flight / statistics.median(rates[kind]):,.0f}",
            *(
                f"{statistics.median(each.cpu_us.get(role, 0.0) for each in costs[kind]):.1f}"
                for role in _ROLES
            ),
            f"{statistics.median(each.rows_a_run for each in costs[kind]):.1f}",
        )
        for kind in servers
    ]
    header = ("", "requests/s", "mean µs", *(f"{role}, CPU µs a request" for role in _ROLES), "rows a run")
    report.tables.append(Table("Native front end, grpcio front end and echo, with h2load", header, rows))
    return report


_CLIENT = "h2load"
_ROLES = ("front ends", "workers", _CLIENT)


@dataclass(frozen=True, slots=True)
class _Costs:
    """What a request costs.

    Attributes:
        cpu_us: CPU microseconds by role.
        rows_a_run: Mean rows of a batch; 0 without an engine.
    """

    cpu_us: Mapping[str, float]
    rows_a_run: float = 0.0


def _cpu_by_role(roles: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """CPU time so far of a server's processes, and of all clients that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**proc.cpu_by_role(roles), _CLIENT: ended.ru_utime + ended.ru_stime}


def _once(shape: Shape, server: _Server, settings: Settings) -> tuple[float, _Costs, str]:
    """Requests a second, what a request costs, and what is wrong with it."""
    counted = scrape(server.http) if server.http else None

    def drive(requests: int) -> float:
        return h2load.requests_per_second(server.target, server.payload, shape, requests, settings.folder)

    probe = drive(_PROBE_REQUESTS)
    requests = max(_PROBE_REQUESTS, int(probe * settings.profile.seconds))
    roles = server.roles()
    before = _cpu_by_role(roles)
    rate = drive(requests)
    cpu_us = {
        role: (seconds - before[role]) / requests * 1e6 for role, seconds in _cpu_by_role(roles).items()
    }
    if server.http is None or counted is None:
        return rate, _Costs(cpu_us), ""
    sent = requests + _PROBE_REQUESTS
    since = settled(server.http, counted.ok + sent).since(counted)
    problem = "" if since.ok == sent else f"h2load got {sent} answers, {since.ok} were counted"
    return rate, _Costs(cpu_us, since.mean_batch), problem
