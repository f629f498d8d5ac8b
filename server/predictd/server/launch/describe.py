"""The plan as text: warnings first, then a table that a person reads in ten seconds, then the reasons. And as JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping

from predictd.server.launch.budget import Budget
from predictd.server.launch.cpulist import format_cpulist
from predictd.server.launch.requests import ChildPlan, LaunchPlan

JSON_VERSION = 1
"""Goes up when a key changes its meaning or goes away; new keys may come at any time."""

_HEADINGS = ("process", "CPUs", "threads", "cores", "waiting", "memory")


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


def as_json(plan: LaunchPlan, budget: Budget, models: Mapping[str, list[str]]) -> str:
    """The same for programs; docs/launcher.md describes it.

    Args:
        plan: The plan.
        budget: What it was made from.
        models: Those of each pool.
    """
    document = {
        "version": JSON_VERSION,
        "warnings": plan.warnings,
        "reasons": (*budget.reasons, *plan.reasons),
        "budget": {
            "cpus": format_cpulist(budget.cpus),
            "quota_cpus": budget.quota_cpus,
            "usable_cpus": budget.effective_cpus,
            "memory_bytes": budget.memory_bytes,
        },
        "frontends": [_child(child) for child in plan.frontends],
        "pools": {
            name: {"models": models.get(name, []), "workers": [_child(child) for child in workers]}
            for name, workers in plan.pools.items()
        },
    }
    return json.dumps(document, indent=2)


def _child(child: ChildPlan) -> dict[str, object]:
    return {
        "cpus": format_cpulist(child.cpus),
        "threads": child.threads,
        "owns_cores": child.owns_cores,
        "spin": child.spin,
        "numa_nodes": child.numa_nodes,
        "environment": dict(child.environment),
        "reasons": child.reasons,
    }


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
    return (
        name,
        format_cpulist(child.cpus),
        str(child.threads),
        "own" if child.owns_cores else "shared",
        "spins" if child.spin else "sleeps",
        f"node {format_cpulist(child.numa_nodes)}" if child.numa_nodes else "any",
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
