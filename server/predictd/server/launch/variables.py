"""One environment variable of a child, and whose value holds when the user exported it, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable of a child."""

    name: str
    value: str
    reason: str


def unless_exported(variable: Variable, exported: Mapping[str, str]) -> Variable:
    """What the user exported wins, and the reason says so."""
    value = exported.get(variable.name)
    if value is None:
        return variable
    agrees = value == variable.value
    verdict = "the plan agrees" if agrees else f"the plan would say {variable.value}"
    return Variable(variable.name, value, f"exported by the user and kept; {verdict}: {variable.reason}")


def preloaded(exported: Mapping[str, str]) -> tuple[str, ...]:
    """The libraries that the user preloads; both separators of ld.so(8) are understood."""
    return tuple(exported.get("LD_PRELOAD", "").replace(":", " ").split())
