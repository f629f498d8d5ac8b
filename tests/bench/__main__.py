"""Runs the scenarios and prints what they found, ratios first."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from predictd.server.measure.engine_process import MeasureError
from tests.bench import machine, markdown
from tests.bench.children import ChildError
from tests.bench.daemon import DaemonError
from tests.bench.load import LoadError
from tests.bench.scenarios import SCENARIOS, Bench
from tests.bench.settings import FULL, QUICK, Settings
from tests.bench.table import Report, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PUBLISHED = tuple(scenario.name for scenario in SCENARIOS.values() if scenario.published)
_GENERATORS = ("wire", "aio")
_FAILURES = (LoadError, ChildError, DaemonError, MeasureError)


def _names(allowed: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(allowed)}")
        return names

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about four minutes: does everything work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON, too")
    parser.add_argument(
        "--markdown",
        type=markdown.page,
        metavar="FILE",
        help="put the results between the two marks of this page, such as docs/performance.md",
    )
    parser.add_argument(
        "--only",
        type=_names(SCENARIOS),
        default=_PUBLISHED,
        metavar="NAMES",
        help=f"some of {','.join(SCENARIOS)}; otherwise {','.join(_PUBLISHED)}",
    )
    parser.add_argument(
        "--generators",
        type=_names(_GENERATORS),
        metavar="NAMES",
        help="of the scenario clients: wire,aio; wire alone if --quick",
    )
    parser.add_argument("--rounds", type=int, help="measurements of each side")
    parser.add_argument("--frontends", type=int, help="of the daemon and of the echo server")
    parser.add_argument("--clients", type=int, default=1, help="client processes")
    parser.add_argument(
        "--serve",
        type=shlex.split,
        default=(),
        metavar="'ARGUMENTS'",
        help="further arguments of predictd serve",
    )
    return parser.parse_args()


def _settings(arguments: argparse.Namespace, folder: Path) -> Settings:
    profile = QUICK if arguments.quick else FULL
    if arguments.rounds is not None:
        profile = dataclasses.replace(profile, rounds=arguments.rounds)
    generators = _GENERATORS[:1] if arguments.quick else _GENERATORS
    return Settings(
        profile=profile,
        folder=folder,
        frontends=arguments.frontends,
        serve_arguments=tuple(arguments.serve),
        generators=arguments.generators or generators,
        clients=arguments.clients,
    )


def _measure(names: tuple[str, ...], settings: Settings) -> Report:
    """All of them. One that cannot be measured is a problem, and what the others find is worth as much."""
    report = Report()
    try:
        with ExitStack() as stack:
            bench = Bench(settings, stack)
            for name in names:
                started = time.monotonic()
                print(f"measuring: {name} …", end=" ", file=sys.stderr, flush=True)
                try:
                    report.add(SCENARIOS[name].run(bench))
                except _FAILURES as error:
                    report.problems.append(f"{name}: {error}")
                print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    except DaemonError as error:
        # Of what several scenarios shared.
        report.problems.append(str(error))
    return report


def _interrupted(number: int, _frame: object) -> None:
    # As an exception, so that every child is stopped on the way out.
    sys.exit(128 + number)


def main() -> int:
    """Exit status 1 if anything was answered wrongly or lost; missed aims are only printed."""
    arguments = _arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupted)
    started = time.monotonic()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="predictd-bench-") as folder:
        names = tuple(name for name in SCENARIOS if name in arguments.only)
        report = _measure(names, _settings(arguments, Path(folder)))
    print(render(report))
    print("\nMachine: " + ", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"Took {time.monotonic() - started:.0f} s")
    if arguments.json is not None:
        results = {"machine": about, **dataclasses.asdict(report)}
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    if arguments.markdown is not None:
        markdown.write(arguments.markdown, report, about, quick=arguments.quick)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
