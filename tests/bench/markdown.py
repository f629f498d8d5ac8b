"""Results as Markdown, between two marks of a page."""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from predictd.server.measure.table import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.bench.table import Report

BEGIN = "<!-- results of make bench: begin -->"
END = "<!-- results of make bench: end -->"


def page(name: str) -> Path:
    """A page that has both marks, as an argument. Any other is refused before anything is measured."""
    path = Path(name)
    try:
        _parts(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def write(path: Path, report: Report, machine: Mapping[str, str], *, quick: bool) -> None:
    """Put results in the place of those before."""
    before, after = _parts(path)
    text = "\n\n".join(_blocks(report, machine, quick=quick))
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _parts(path: Path) -> tuple[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: it has no lines {BEGIN} and {END}")
    return before, after


def _blocks(report: Report, machine: Mapping[str, str], *, quick: bool) -> Iterator[str]:
    today = dt.datetime.now(dt.UTC).date().isoformat()
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    short = "A quick run, which is short. " if quick else ""
    yield f"{short}Measured on {today}: {about}."
    yield table(
        ("ratio, median of the rounds (least … greatest)", "", "aim", ""),
        [(each.name, each.spread.text(3), each.aim_text, each.verdict) for each in report.ratios],
    )
    for each in report.tables:
        yield f"**{each.title}**"
        yield table(each.header, each.rows)
    notes = [*report.problems, *dict.fromkeys(report.notes)]
    if notes:
        yield "\n".join(f"* {note}" for note in notes)
