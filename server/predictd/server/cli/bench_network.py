"""`predictd bench` over the network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predictd.server.cli.parameters import as_text

if TYPE_CHECKING:
    from predictd.server.bench.access import Access
    from predictd.server.bench.results import Result
    from predictd.server.bench.slo import Slo

_CALLERS = (1, 4, 16)
_SECONDS = 5.0
_WARM_UP_SECONDS = 2.0
# Short enough to show that something changes, long enough for some answers.
_INTERVAL_SECONDS = 0.2
_INTERVALS_MIN = 10


@dataclass(frozen=True, slots=True)
class NetworkWish:
    """What the options say; their meaning is said there."""

    target: str
    api: str
    streams: bool
    models: tuple[str, ...]
    callers: tuple[int, ...]
    rates: tuple[float, ...]
    arrivals: str
    slo: Slo | None
    connections: int
    processes: int
    rows: int
    deadline_ns: int
    http: str
    shapes: Mapping[str, tuple[int, ...]]
    ranges: Mapping[str, tuple[float, float]]
    inputs: Path | None
    time_ns: int | None
    warm_up_ns: int | None
    as_json: bool
    html: Path | None
    access: Access


def bench_network(wish: NetworkWish) -> int:
    """Measure, print, and write the page."""
    # Only now: the help must not wait for NumPy and gRPC.
    from predictd.server.bench import page, report
    from predictd.server.measure.engine_process import MeasureError
    from predictd.server.measure.interrupt import terminated_as_interrupted
    from predictd.server.measure.progress import ProgressLine

    if wish.html is not None and not wish.html.absolute().parent.is_dir():
        raise click.ClickException(f"{wish.html}: there is no folder {wish.html.parent}")
    line = ProgressLine(sys.stderr)
    try:
        with terminated_as_interrupted():
            result = _measure(wish, line.show if sys.stderr.isatty() else lambda _text: None)
    except (MeasureError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        line.clear()
    # First, so that nothing that was measured is lost where the page cannot be written.
    click.echo(as_text(result) if wish.as_json else "\n\n".join(report.text(result)))
    if wish.html is not None:
        try:
            wish.html.write_text(page.html(result), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{wish.html}: {error.strerror}") from error
    return 0


def _measure(wish: NetworkWish, show: Callable[[str], None]) -> Result:
    from predictd.server.bench.machine import describe, now
    from predictd.server.bench.meter import Times
    from predictd.server.bench.processes import Generators
    from predictd.server.bench.requests import Wanted, prepare
    from predictd.server.bench.results import Result
    from predictd.server.bench.session import Level, Session, Setup
    from predictd.server.measure.inputs import MakeUp, Range
    from predictd.server.measure.quantities import count

    wish.access.check(wish.target, wish.http)
    seconds = _SECONDS if wish.time_ns is None else wish.time_ns / 1e9
    times = Times(
        min(_INTERVAL_SECONDS, seconds / _INTERVALS_MIN),
        _WARM_UP_SECONDS if wish.warm_up_ns is None else wish.warm_up_ns / 1e9,
        seconds,
    )
    make_up = MakeUp(wish.shapes, {name: Range(*bounds) for name, bounds in wish.ranges.items()})
    setup = Setup(
        wish.target,
        wish.api,
        wish.streams,
        wish.models,
        max(wish.connections, wish.processes),
        wish.arrivals,
        wish.deadline_ns,
        wish.http,
        times,
        wish.access,
    )
    began = now()
    payload = prepare(
        Wanted(wish.target, wish.api, wish.models, wish.rows, wish.inputs, make_up, wish.access),
        streams=wish.streams,
    )
    with Generators(wish.processes) as generators:
        session = Session(setup, payload, generators, wish.processes, show)
        if wish.slo is not None:
            points, slo = session.search(wish.slo, wish.rates[0] if wish.rates else None)
        else:
            callers = wish.callers or (() if wish.rates else _CALLERS)
            levels = [Level(callers=each) for each in callers] + [Level(rate=each) for each in wish.rates]
            points, slo = [session.measure(level) for level in levels], None
    return Result(
        target=wish.target,
        api=wish.api,
        streams=wish.streams,
        models=list(wish.models),
        inputs=f"random, {count(wish.rows, 'row', 'rows')} each"
        if wish.inputs is None
        else f"inputs of {wish.inputs}",
        arrivals=wish.arrivals,
        connections=setup.connections,
        processes=wish.processes,
        machine=describe(),
        began=began,
        points=points,
        slo=slo,
        tls=wish.access.tls,
    )


def compare_files(one: Path, other: Path) -> int:
    """Print how two benches differ."""
    from predictd.server.bench.report import compare, read
    from predictd.server.measure.engine_process import MeasureError

    try:
        click.echo("\n\n".join(compare(read(one), read(other))))
    except MeasureError as error:
        raise click.ClickException(str(error)) from error
    return 0
