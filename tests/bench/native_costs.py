"""What encryption, tokens, the log of requests and limits cost the front end in C: each beside the plain daemon.

All are daemons of their own and driven by turns, with h2load as the client. Its share of TLS is measured with it, as it
shares the CPUs. Connecting is part of it, too: each turn has connections of its own.
"""

from __future__ import annotations

import resource
import statistics
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from predictd.server.access.identity import Role
from predictd.server.access.tokens import TokenEntry, entry_text, hash_text, new_token
from predictd.server.supervise.carrier import native_problem
from tests.bench import h2load, proc
from tests.bench.daemon import Daemon
from tests.bench.metrics import scrape, settled, ways
from tests.bench.native import TINY, TINY_ARGUMENTS
from tests.bench.payload import predict_payload
from tests.bench.subject import mlp
from tests.bench.table import Ratio, Report, Spread, Table, ratio_of_rounds
from tests.fixtures.self_signed import self_signed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.bench.load import Shape
    from tests.bench.payload import Payload
    from tests.bench.settings import Settings
    from tests.bench.subject import Subject

_PLAIN = "plain"
_PROBE_REQUESTS = 200
# A caller is Python's until it is known, a shape until it was checked and has memory.
_HOT_AT_LEAST = 0.99
_CLIENT = "h2load"
_ROLES = ("front ends", "workers", _CLIENT)


@dataclass(frozen=True, slots=True)
class _Variant:
    """A way to serve, and how its clients have to come.

    Attributes:
        name: For the tables.
        arguments: Of `predictd serve`.
        tls: Clients come encrypted.
        headers: Clients send these, too.
    """

    name: str
    arguments: tuple[str, ...] = ()
    tls: bool = False
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Served:
    """A variant, and its daemon."""

    variant: _Variant
    daemon: Daemon
    payload: Payload
    folder: Path

    def drive(self, shape: Shape, requests: int) -> float:
        """Requests a second."""
        return h2load.requests_per_second(
            self.daemon.target,
            self.payload,
            shape,
            requests,
            self.folder,
            tls=self.variant.tls,
            headers=self.variant.headers,
        )


@dataclass(slots=True)
class _Found:
    """What was found of a variant under a load, a value a round.

    Attributes:
        rates: Requests a second.
        cpu_us: CPU microseconds a request, by role.
        ways: Requests by their way through the front end, of all rounds.
        problems: What is wrong with it.
    """

    rates: list[float] = field(default_factory=list)
    cpu_us: list[Mapping[str, float]] = field(default_factory=list)
    ways: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def hot(self) -> float:
        """The share of requests that C did all of."""
        return self.ways["hot"] / max(1, self.ways.total())


def run(settings: Settings) -> Report:
    """The tiny model under three loads."""
    if problem := native_problem():
        return Report(problems=[f"{problem}: what its parts cost is not measured"])
    if not h2load.installed():
        return Report(
            problems=["h2load is not installed: what the native front end's parts cost is not measured"]
        )
    folder = settings.folder / "native-costs"
    folder.mkdir()
    report = Report()
    subject = mlp(folder)
    with ExitStack() as stack:
        served = [_start(each, subject, settings, folder, stack) for each in _variants(folder)]
        for case in TINY:
            report.add(_load(case.name, case.shape, served, settings))
    return report


def _variants(folder: Path) -> tuple[_Variant, ...]:
    token = new_token()
    tokens = folder / "tokens.toml"
    tokens.write_text(entry_text(TokenEntry(name="bench", hash=hash_text(token), roles=(Role.INFER,))))
    self_signed(folder, "localhost")
    tls = ("--tls-certificate", str(folder / "certificate.pem"), "--tls-key", str(folder / "key.pem"))
    known = ("--tokens", str(tokens))
    shown = (f"authorization: Bearer {token}",)
    return (
        _Variant(_PLAIN),
        _Variant("TLS", tls, tls=True),
        _Variant("token", known, headers=shown),
        _Variant("TLS and token", (*tls, *known), tls=True, headers=shown),
        _Variant("--request-log 0.01", ("--request-log", "0.01")),
        # A limit that is not reached.
        _Variant("--max-concurrent-per-client 1000", ("--max-concurrent-per-client", "1000")),
    )


def _start(
    variant: _Variant, subject: Subject, settings: Settings, folder: Path, stack: ExitStack
) -> _Served:
    own = folder / variant.name
    own.mkdir()
    arguments = (*settings.daemon_arguments, "--frontend", "native", *TINY_ARGUMENTS, *variant.arguments)
    daemon = stack.enter_context(Daemon(subject.path, own, arguments))
    return _Served(variant, daemon, predict_payload(subject, 1), own)


def _load(name: str, shape: Shape, served: list[_Served], settings: Settings) -> Report:
    found = {each.variant.name: _Found() for each in served}
    for each in served:
        # Python hears of each caller, and of a shape until it has memory for so many.
        each.drive(shape, _PROBE_REQUESTS)
    for _ in range(settings.profile.rounds):
        for each in served:
            _once(each, shape, found[each.variant.name], settings.profile.seconds)
    report = Report()
    plain = found[_PLAIN]
    for variant, one in found.items():
        label = f"{name}, {variant}"
        report.problems += [f"{label}: {problem}" for problem in one.problems]
        if one.hot < _HOT_AT_LEAST:
            report.problems.append(
                f"{label}: only {one.hot:.1%} of its requests stayed hot: {dict(one.ways)}"
            )
        if one is not plain:
            ratio = ratio_of_rounds(one.rates, plain.rates)
            report.ratios.append(Ratio(f"{label}: requests/s over plain", ratio, 1.0, None))
    header = ("", "requests/s", *(f"{role}, CPU µs a request" for role in _ROLES), "stayed hot")
    rows = [(f"{name}, {variant}", *_cells(one)) for variant, one in found.items()]
    report.tables.append(Table("What it costs the native front end, with h2load", header, rows))
    return report


def _cells(found: _Found) -> tuple[str, ...]:
    cpu_us = (statistics.median(each.get(role, 0.0) for each in found.cpu_us) for role in _ROLES)
    return (Spread.of(found.rates).text(0), *(f"{each:.1f}" for each in cpu_us), f"{found.hot:.3%}")


def _once(served: _Served, shape: Shape, found: _Found, seconds: float) -> None:
    http = served.daemon.http
    counted, passed = scrape(http), ways(http)
    requests = max(_PROBE_REQUESTS, int(served.drive(shape, _PROBE_REQUESTS) * seconds))
    roles = served.daemon.roles()
    before = _cpu_by_role(roles)
    found.rates.append(served.drive(shape, requests))
    after = _cpu_by_role(roles)
    found.cpu_us.append({role: (after[role] - before[role]) / requests * 1e6 for role in after})
    sent = requests + _PROBE_REQUESTS
    answered = settled(http, counted.ok + sent).ok - counted.ok
    found.ways.update(ways(http) - passed)
    if answered != sent:
        found.problems.append(f"h2load got {sent} answers, {answered} were counted")


def _cpu_by_role(roles: Mapping[str, list[int]]) -> dict[str, float]:
    """CPU time so far of a daemon's processes, and of all clients that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**proc.cpu_by_role(roles), _CLIENT: ended.ru_utime + ended.ru_stime}
