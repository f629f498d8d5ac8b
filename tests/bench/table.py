"""Results: ratios with their spread, tables, and how they are printed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and the least and greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int) -> str:
        """Such as `0.97 (0.95 … 0.99)`."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} … {self.high:,.{digits}f})"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One headline number.

    Attributes:
        name: What over what.
        spread: Of the ratios of neighbouring measurements, one for each round.
        aim: What the project promises.
        better: Which side of the aim is good; None for a number without an aim.
    """

    name: str
    spread: Spread
    aim: float
    better: Literal["above", "below"] | None

    @property
    def verdict(self) -> str:
        """Whether the median keeps the promise."""
        if self.better is None:
            return ""
        kept = self.spread.median >= self.aim if self.better == "above" else self.spread.median <= self.aim
        return "met" if kept else "MISSED"

    @property
    def aim_text(self) -> str:
        """The promise, as it is printed."""
        if self.better is None:
            return ""
        return f"{'≥' if self.better == 'above' else '≤'} {self.aim:g}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(slots=True)
class Report:
    """What one scenario found.

    Attributes:
        ratios: Printed first, all scenarios together.
        tables: The measurements behind them.
        notes: What a reader must know to judge the numbers.
        problems: What casts doubt on the numbers. Any makes the run fail.
    """

    ratios: list[Ratio] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Append what another scenario found. Tables that are alike become one."""
        self.ratios += other.ratios
        for table in other.tables:
            known = {(each.title, tuple(each.header)): at for at, each in enumerate(self.tables)}
            if (at := known.get((table.title, tuple(table.header)))) is None:
                self.tables.append(table)
            else:
                self.tables[at] = Table(table.title, table.header, [*self.tables[at].rows, *table.rows])
        self.notes += other.notes
        self.problems += other.problems


def ratio_of_rounds(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The spread of the ratios of neighbours: what disturbs a whole round cancels."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def lines(table: Table) -> Iterable[str]:
    """The table as text: the first column to the left, the others to the right."""
    cells = [list(table.header), *[list(row) for row in table.rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]
    yield table.title
    for number, row in enumerate(cells):
        first, *others = zip(row, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        yield "  " + "  ".join(padded).rstrip()
        if number == 0:
            yield "  " + "  ".join("-" * width for width in widths)


def render(report: Report) -> str:
    """The whole report, ratios first."""
    ratios = Table(
        "Ratios: median of the rounds (least … greatest)",
        ("", "ratio", "aim", ""),
        [(r.name, r.spread.text(3), r.aim_text, r.verdict) for r in report.ratios],
    )
    parts = ["\n".join(lines(table)) for table in [ratios, *report.tables] if table.rows]
    if report.notes:
        parts.append("Notes\n" + "\n".join(f"  * {note}" for note in dict.fromkeys(report.notes)))
    if report.problems:
        parts.append("PROBLEMS\n" + "\n".join(f"  ! {problem}" for problem in report.problems))
    return "\n\n".join(parts)
