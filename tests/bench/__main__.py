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

from tests.bench import (
    agreement,
    latency,
    lighter,
    machine,
    mlp,
    openmp,
    overload,
    served,
    startup,
    streams,
    tail,
    worker,
    workers,
)
from tests.bench.children import ChildError
from tests.bench.daemon import DaemonError
from tests.bench.load import LoadError
from tests.bench.settings import FULL, QUICK, Settings
from tests.bench.table import Report, render
from tests.bench.tiny import open_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SCENARIOS = (
    "startup",
    *served.CASES,
    "overload",
    "worker",
    "workers",
    "openmp",
    "optimize",
    "tail",
    "mlp",
    "latency",
    "streams",
    "agreement",
)
_GENERATORS = ("wire", "aio")
_ON_PAIR = {"mlp": mlp.run, "latency": latency.run, "streams": streams.run, "agreement": agreement.run}


def _names(allowed: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(allowed)}")
        return names

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about 20 seconds: does everything work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON, too")
    parser.add_argument(
        "--only", type=_names(_SCENARIOS), default=_SCENARIOS, metavar="NAMES", help=",".join(_SCENARIOS)
    )
    parser.add_argument(
        "--generators", type=_names(_GENERATORS), metavar="NAMES", help="wire,aio; wire alone if --quick"
    )
    parser.add_argument("--rounds", type=int, help="measurements of each side")
    parser.add_argument("--frontends", type=int, help="of the daemon and of the echo server")
    parser.add_argument("--clients", type=int, default=1, help="client processes for the tiny MLP")
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
    report = Report()
    with ExitStack() as stack:
        pair = None
        for name in names:
            print(f"measuring: {name} …", file=sys.stderr, flush=True)
            if name == "startup":
                report.add(startup.run(settings))
            elif name == "overload":
                report.add(overload.run(settings))
            elif name == "worker":
                report.add(worker.run(settings))
            elif name == "workers":
                report.add(workers.run(settings))
            elif name == "openmp":
                report.add(openmp.run(settings))
            elif name == "tail":
                report.add(tail.run(settings))
            elif name == "optimize":
                report.add(lighter.run(settings))
            elif name in served.CASES:
                report.add(served.run(served.CASES[name], settings))
            else:
                pair = pair or stack.enter_context(open_pair(settings))
                report.add(_ON_PAIR[name](pair, settings))
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
        try:
            # In the order of the declaration: a pair that is open would disturb the scenarios without it.
            names = tuple(name for name in _SCENARIOS if name in arguments.only)
            report = _measure(names, _settings(arguments, Path(folder)))
        except (LoadError, ChildError, DaemonError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    print(render(report))
    print("\nMachine: " + ", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"Took {time.monotonic() - started:.0f} s")
    if arguments.json is not None:
        results = {"machine": about, **dataclasses.asdict(report)}
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
