"""The environment variables that a child gets, each with its reason.

What an engine obeys depends on who makes its threads (`predictd.engines.traits`). The numbers of ONNX Runtime and
OpenVINO are options at load, which the worker gives them; an OpenMP runtime and the allocator look at the environment
once, when they are loaded, so theirs must be there at exec.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from predictd.server.launch.allocators import choose_allocator
from predictd.server.launch.facilities import Facilities
from predictd.server.launch.openmp import (
    may_load_openmp,
    openmp_variables,
    openmp_warnings,
    preload_for,
    preloads_libiomp5,
    threading_reasons,
)
from predictd.server.launch.variables import Variable, unless_exported

_SUPERVISORS_OWN = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})


class Role(enum.StrEnum):
    """What a child is."""

    FRONTEND = "frontend"
    WORKER = "worker"


def choose_variables(
    role: Role,
    *,
    engines: frozenset[str],
    threads: int,
    cpus: Sequence[int],
    passive: bool,
    allocator: str | None,
    facilities: Facilities,
    exported: Mapping[str, str],
    openmp: str | None = None,
) -> tuple[Variable, ...]:
    """Decide what a child's environment says.

    Args:
        role: What the child is.
        engines: Of the lanes of a worker; an empty set says that they may be any.
        threads: Threads that compute at once.
        cpus: The child's mask.
        passive: Others need the CPUs while a thread waits, or a quota counts the waiting.
        allocator: That a worker shall have; None lets the plan decide. A front end keeps what is there.
        facilities: What the system has.
        exported: The variables that the user exported. They win, with one exception: no process phones home.
        openmp: OpenMP runtime that a worker shall have: "libgomp" or "libiomp5"; None is whichever its engine brings.

    Returns:
        The variables that matter, those that the user decided included.
    """
    wanted = [*_library_threads(role, engines, threads), *_process()]
    if role is Role.FRONTEND:
        wanted += _grpc()
        return (_telemetry(exported), *(unless_exported(variable, exported) for variable in wanted))
    chosen = choose_allocator(allocator, facilities, exported)
    wanted += chosen.variables
    libraries = [chosen.library] if chosen.library else []
    if may_load_openmp(engines):
        runtime = preload_for(openmp, facilities, exported)
        libraries = [runtime, *libraries] if runtime else libraries
        libiomp5 = runtime is not None or preloads_libiomp5(exported)
        wanted += openmp_variables(threads=threads, cpus=cpus, passive=passive, libiomp5=libiomp5)
    variables = [unless_exported(variable, exported) for variable in wanted]
    return (_telemetry(exported), *variables, *_preload(libraries, exported))


def environment_reasons(
    engines: frozenset[str], allocator: str | None, facilities: Facilities, exported: Mapping[str, str]
) -> tuple[str, ...]:
    """What a worker's environment leaves alone, and why. What it says has its reasons beside it."""
    return (*threading_reasons(engines), choose_allocator(allocator, facilities, exported).reason)


def environment_warnings(
    engines: frozenset[str],
    facilities: Facilities,
    exported: Mapping[str, str],
    *,
    allocators: frozenset[str | None] = frozenset(),
    openmp: frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """What the user exported or asked for without the effect that it should have.

    Args:
        engines: Of all workers; an empty set says that they may be any.
        facilities: What the system has.
        exported: The variables that the user exported.
        allocators: What the pools ask for.
        openmp: The OpenMP runtimes that the pools ask for.
    """
    asked = sorted(name for name in allocators if name is not None)
    missing = (choose_allocator(name, facilities, exported).warning for name in asked)
    return (*openmp_warnings(engines, openmp, facilities, exported), *filter(None, missing))


def child_environment(base: Mapping[str, str], planned: Mapping[str, str]) -> dict[str, str]:
    """The whole environment to exec a child with.

    Args:
        base: The supervisor's environment; not changed. All of it is passed on, `PYTHONSAFEPATH` included, but for
            what makes the supervisor a service: no child speaks for it.
        planned: `ChildPlan.environment`, which already holds the user's values where those win.
    """
    kept = {name: value for name, value in base.items() if name not in _SUPERVISORS_OWN}
    return {**kept, **planned}


def _library_threads(role: Role, engines: frozenset[str], threads: int) -> list[Variable]:
    """For NumPy's libraries: an engine of the user's own may compute with them."""
    if role is Role.WORKER and may_load_openmp(engines):
        count, why = threads, "the worker's threads, or the library would count the machine's CPUs"
    else:
        count, why = 1, "nothing here computes with NumPy's library, which would make idle threads at import"
    return [Variable(name, str(count), why) for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]


def _process() -> list[Variable]:
    return [
        Variable("PYTHONUNBUFFERED", "1", "the last lines of a child that is killed are not lost"),
        Variable(
            "SPT_NOENV", "1", "the process title is not written over what /proc shows of the environment"
        ),
    ]


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


def _preload(libraries: Sequence[str], exported: Mapping[str, str]) -> tuple[Variable, ...]:
    """The one variable that is added to and not replaced: the user's libraries come first, and stay."""
    own = exported.get("LD_PRELOAD", "")
    if not libraries:
        return ()
    why = f"{' and '.join(path.rpartition('/')[2] for path in libraries)} as asked"
    if own:
        why += ", behind what the user preloads"
    return (Variable("LD_PRELOAD", ":".join([own, *libraries] if own else libraries), why),)
