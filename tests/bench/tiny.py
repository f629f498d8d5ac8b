"""The pair behind two scenarios: the daemon with a tiny MLP, and an echo server with as many front ends."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.daemon import Daemon
from tests.bench.echo_server import EchoServer
from tests.bench.metrics import Counters, scrape, settled
from tests.bench.payload import Payload, echo_payload, learn_answer, predict_payload
from tests.bench.subject import mlp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.bench.load import LoadGenerator, LoadResult, Roles, Shape
    from tests.bench.settings import Settings

_REQUESTS = 16


@dataclass(frozen=True, slots=True)
class Pair:
    """Both servers, idle."""

    daemon: Daemon
    echo: EchoServer
    payload: Payload
    payload_file: Path
    echo_payload: Payload
    echo_file: Path

    @property
    def frontends(self) -> int:
        """Front-end processes of either."""
        return len(self.echo.roles()["front ends"])


@dataclass(frozen=True, slots=True)
class Rounds:
    """What the rounds gave, A and B as neighbours.

    Attributes:
        daemon: One result a round.
        echo: One result a round.
        counted: What the daemon says of its own rounds.
    """

    daemon: list[LoadResult]
    echo: list[LoadResult]
    counted: Counters

    def lost(self) -> str | None:
        """A difference between what the clients got and what the daemon counted, in words."""
        got = sum(result.total for result in self.daemon)
        if got == self.counted.ok:
            return None
        return f"clients got {got} answers with status OK, the daemon counted {self.counted.ok}"


@contextmanager
def open_pair(settings: Settings) -> Iterator[Pair]:
    """Start both, and learn from one call what an answer looks like."""
    subject = mlp(settings.folder)
    payload = predict_payload(subject, _REQUESTS)
    with Daemon(subject.path, settings.folder, settings.daemon_arguments) as daemon:
        learn_answer(daemon.target, payload)
        echoed = echo_payload(payload)
        with EchoServer(len(daemon.roles()["front ends"]), payload.answer_bytes) as echo:
            learn_answer(echo.target, echoed)
            yield Pair(
                daemon,
                echo,
                payload,
                payload.save(settings.folder / "mlp.payload"),
                echoed,
                echoed.save(settings.folder / "echo.payload"),
            )


def alternate(pair: Pair, settings: Settings, generator: LoadGenerator, shape: Shape) -> Rounds:
    """Measure A B A B …, only one of the two being driven at a time."""
    daemon_roles = pair.daemon.roles()
    rounds: list[tuple[LoadResult, LoadResult]] = []
    before = scrape(pair.daemon.http)

    def once(target: str, file: Path, roles: Roles) -> LoadResult:
        return generator.run(target, file, shape, settings.profile, roles=roles)

    for _ in range(settings.profile.rounds):
        served = once(pair.daemon.target, pair.payload_file, lambda: daemon_roles)
        echoed = once(pair.echo.target, pair.echo_file, pair.echo.roles)
        rounds.append((served, echoed))
    daemon, echo = [served for served, _ in rounds], [echoed for _, echoed in rounds]
    counted = settled(pair.daemon.http, before.ok + sum(result.total for result in daemon))
    return Rounds(daemon, echo, counted.since(before))
