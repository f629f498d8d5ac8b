"""A tiny MLP over the echo server again, with other clients: what clients take of a small machine is in the result."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from tests.bench import h2load, proc, recording
from tests.bench.load import LoadError, LoadGenerator, LoadResult, Shape
from tests.bench.machine import caveats
from tests.bench.metrics import scrape, settled
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds
from tests.bench.tiny import Pair, Rounds, alternate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.settings import Settings

_AIM = 0.65
_SHAPE = Shape(connections=8, in_flight=16)
_ROLES = ("supervisor", "front ends", "workers", "clients")
_H2LOAD_PROBE_REQUESTS = 2000


def run(pair: Pair, settings: Settings) -> Report:
    """Once with each load generator."""
    report = Report()
    cpu_rows: list[Sequence[str]] = []
    rate_rows: list[Sequence[str]] = []
    frontend_us: list[float] = []
    for kind in settings.generators:
        with LoadGenerator(kind, settings.clients, settings.folder) as generator:
            rounds = alternate(pair, settings, generator, _SHAPE)
        report.ratios.append(
            _ratio(kind, [r.per_second for r in rounds.daemon], [r.per_second for r in rounds.echo])
        )
        rate_rows += _rate_rows(kind, rounds)
        cpu_rows += [_cpu_row(f"predictd ({kind})", rounds.daemon), _cpu_row(f"echo ({kind})", rounds.echo)]
        frontend_us.append(statistics.median(r.cpu_us("front ends") for r in rounds.daemon))
        report.notes += caveats(f"MLP, {kind} client", [*rounds.daemon, *rounds.echo])
        if lost := rounds.lost():
            report.problems.append(f"MLP, {kind} client: {lost}")
    if h2load.installed():
        try:
            report.add(_with_h2load(pair, settings, rate_rows))
        except LoadError as error:
            report.problems.append(str(error))
    shape = (
        f"{_SHAPE.connections} connections with {_SHAPE.in_flight} in flight, {pair.frontends} front end(s)"
    )
    report.tables += [
        Table(
            f"Tiny MLP against echo: {shape}",
            ("", "requests/s", "p50 ms", "p99 ms", "mean batch", "checked"),
            rate_rows,
        ),
        Table("CPU µs a request, by role (median)", ("", *_ROLES, "server CPUs"), cpu_rows),
        _memory(pair),
    ]
    report.add(recording.run(min(frontend_us)))
    return report


def _ratio(kind: str, served: Sequence[float], echoed: Sequence[float]) -> Ratio:
    name = f"tiny MLP requests/s over grpc.aio echo ({kind} client)"
    return Ratio(name, ratio_of_rounds(served, echoed), _AIM, "above")


def _rate_rows(kind: str, rounds: Rounds) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    sides = (("predictd", rounds.daemon, f"{rounds.counted.mean_batch:.1f}"), ("echo", rounds.echo, ""))
    for name, results, batch in sides:
        rows.append(
            (
                f"{name} ({kind})",
                Spread.of([r.per_second for r in results]).text(0),
                f"{statistics.median(r.percentile_us(50) for r in results) / 1e3:.2f}",
                f"{statistics.median(r.percentile_us(99) for r in results) / 1e3:.2f}",
                batch,
                f"{sum(r.verified for r in results):,}",
            )
        )
    return rows


def _cpu_row(name: str, results: Sequence[LoadResult]) -> Sequence[str]:
    each = [f"{statistics.median(r.cpu_us(role) for r in results):.1f}" for role in _ROLES]
    busy = [(sum(r.cpu_seconds.values()) - r.cpu_seconds["clients"]) / r.seconds for r in results]
    return (name, *each, f"{statistics.median(busy):.2f}")


def _with_h2load(pair: Pair, settings: Settings, rows: list[Sequence[str]]) -> Report:
    report = Report()
    before = scrape(pair.daemon.http)
    sent = 0
    served: list[float] = []
    echoed: list[float] = []

    def once(target: str, requests: int) -> float:
        payload = pair.payload if target == pair.daemon.target else pair.echo_payload
        return h2load.requests_per_second(target, payload, _SHAPE, requests, settings.folder)

    for _ in range(settings.profile.rounds):
        for target, rates in ((pair.daemon.target, served), (pair.echo.target, echoed)):
            probe = once(target, _H2LOAD_PROBE_REQUESTS)
            requests = max(_H2LOAD_PROBE_REQUESTS, int(probe * settings.profile.seconds))
            rates.append(once(target, requests))
            sent += requests + _H2LOAD_PROBE_REQUESTS if target == pair.daemon.target else 0
    counted = settled(pair.daemon.http, before.ok + sent).since(before)
    if counted.ok != sent:
        report.problems.append(f"h2load got {sent} answers, the daemon counted {counted.ok} with status OK")
    report.ratios.append(_ratio("h2load", served, echoed))
    rows += [
        ("predictd (h2load)", Spread.of(served).text(0), "", "", f"{counted.mean_batch:.1f}", ""),
        ("echo (h2load)", Spread.of(echoed).text(0), "", "", "", ""),
    ]
    return report


def _memory(pair: Pair) -> Table:
    rows = []
    for server, roles in (("predictd", pair.daemon.roles()), ("echo", pair.echo.roles())):
        for role, pids in roles.items():
            if pids:
                memory = proc.memory_of(pids)
                rss, pss = memory.rss_bytes / 2**20, memory.pss_bytes / 2**20
                rows.append((f"{server}: {role}", str(len(pids)), f"{rss:.1f}", f"{pss:.1f}"))
    return Table("Memory after the load", ("", "processes", "RSS MiB", "PSS MiB"), rows)
