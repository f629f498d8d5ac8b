"""The environment variables that a child gets, each with its reason.

No variable that binds threads is ever set (`OMP_PROC_BIND`, `GOMP_CPU_AFFINITY`, `KMP_AFFINITY`): an OpenMP
runtime binds the thread that loads it to one CPU, and every thread and process made afterwards inherits that
one CPU. The mask that a child is started with says where it may run; these variables only say how many
threads.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Role(enum.StrEnum):
    """What a child is."""

    FRONTEND = "frontend"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable of a child."""

    name: str
    value: str
    reason: str


def choose_variables(
    role: Role, *, threads: int, passive: bool, exported: Mapping[str, str]
) -> tuple[Variable, ...]:
    """Decide what a child's environment says.

    Args:
        role: What the child is.
        threads: Threads that compute at once.
        passive: Others need the CPUs while a thread waits, or a quota counts the waiting.
        exported: The variables that the user exported. They win, with one exception: no process phones home.

    Returns:
        The variables that matter, those that the user decided included.
    """
    wanted = [*_thread_counts(role, threads), *_python()]
    if passive:
        why = "a thread that waits sleeps, as others need its CPU or a quota counts the waiting"
        wanted.append(Variable("OMP_WAIT_POLICY", "PASSIVE", why))
    if role is Role.FRONTEND:
        wanted += _grpc()
    return (_telemetry(exported), *(_unless_exported(variable, exported) for variable in wanted))


def child_environment(base: Mapping[str, str], planned: Mapping[str, str]) -> dict[str, str]:
    """The whole environment to exec a child with.

    Args:
        base: The supervisor's environment; not changed. All of it is passed on, `PYTHONSAFEPATH` included.
        planned: `ChildPlan.environment`, which already holds the user's values where those win.
    """
    return {**base, **planned}


def binding_warnings(exported: Mapping[str, str]) -> tuple[str, ...]:
    """Name the exported variables that squeeze every thread of a child onto one CPU."""
    harmless = {
        "OMP_PROC_BIND": ("false",),
        "OMP_PLACES": (),
        "GOMP_CPU_AFFINITY": (),
        # "reset" gives the mask back after the parallel region.
        "KMP_AFFINITY": ("reset", "disabled", "none"),
    }
    return tuple(
        f"{name}={exported[name]} is exported and kept: with it, OpenMP may squeeze all threads onto one CPU"
        for name, words in harmless.items()
        if exported.get(name) and not any(word in exported[name].lower().split(",") for word in words)
    )


def _thread_counts(role: Role, threads: int) -> list[Variable]:
    if role is Role.FRONTEND:
        why = "a front end computes nothing that is worth a thread pool"
    else:
        why = "the worker's threads, or the library would count the machine's CPUs"
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return [Variable(name, str(threads), why) for name in names]


def _python() -> list[Variable]:
    return [Variable("PYTHONUNBUFFERED", "1", "the last lines of a child that is killed are not lost")]


def _grpc() -> list[Variable]:
    return [
        Variable("GRPC_VERBOSITY", "ERROR", "gRPC's own notices would stand between the daemon's log lines"),
        Variable("GRPC_ENABLE_FORK_SUPPORT", "0", "children are exec'ed; the fork handlers only cost"),
    ]


def _telemetry(exported: Mapping[str, str]) -> Variable:
    why = "no process phones home"
    if exported.get("ORT_DISABLE_TELEMETRY", "1") != "1":
        why += f" (the exported {exported['ORT_DISABLE_TELEMETRY']!r} is overridden)"
    return Variable("ORT_DISABLE_TELEMETRY", "1", why)


def _unless_exported(variable: Variable, exported: Mapping[str, str]) -> Variable:
    value = exported.get(variable.name)
    if value is None:
        return variable
    agrees = value == variable.value
    verdict = "the plan agrees" if agrees else f"the plan would say {variable.value}"
    return Variable(variable.name, value, f"exported by the user and kept; {verdict}: {variable.reason}")
