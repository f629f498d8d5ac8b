"""The plan as text: warnings first, then a table that a person reads in ten seconds, then the reasons."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from predictd.server.launch.budget import Budget
from predictd.server.launch.cpulist import format_cpulist
from predictd.server.launch.plan import ChildPlan, LaunchPlan

_HEADINGS = ("process", "CPUs", "threads", "cores")


def describe(plan: LaunchPlan, budget: Budget, *, explain: bool = False) -> str:
    """Render a plan.

    Args:
        plan: The plan.
        budget: What it was made from.
        explain: Add the reasons of every child, environment included.

    Returns:
        Lines without a newline at the end.
    """
    groups = list(_groups(plan))
    lines = [f"warning: {warning}" for warning in plan.warnings]
    lines += _table([_HEADINGS, *(_row(name, child) for name, child in groups)])
    lines += ["because"]
    lines += [f"  {reason}" for reason in (*budget.reasons, *plan.reasons)]
    if explain:
        for name, child in groups:
            lines += [name, *(f"  {reason}" for reason in child.reasons)]
    return "\n".join(lines)


def _groups(plan: LaunchPlan) -> Iterator[tuple[str, ChildPlan]]:
    """Neighbours that are alike as one, such as `frontend 0-3`."""
    families = [
        ("frontend", plan.frontends),
        *((f"worker {name}", kids) for name, kids in plan.pools.items()),
    ]
    for family, children in families:
        for child, run in itertools.groupby(range(len(children)), key=lambda number: children[number]):
            yield f"{family} {format_cpulist(run)}", child


def _row(name: str, child: ChildPlan) -> tuple[str, ...]:
    return (name, format_cpulist(child.cpus), str(child.threads), "own" if child.owns_cores else "shared")


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
