"""Entering the sandbox: a worker's first act. Nothing of it can be undone, and children inherit it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Mapping
from pathlib import Path

from predictd.server.launch.sandbox import capabilities, landlock, seccomp
from predictd.server.launch.sandbox.confinement import Confinement
from predictd.server.launch.sandbox.paths import system_paths


def enter(confinement: Confinement, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Keep this process from what it is to be kept from. It must have one thread.

    Args:
        confinement: What that is.
        environment: Of this process.

    Returns:
        What could not be done, each in one line.
    """
    # A dump would hold what clients sent, and be written by a process that nobody trusts any more.
    steps: list[Callable[[], None]] = [_no_core, seccomp.forbid_new_privileges]
    if confinement.landlock:
        steps.append(lambda: _restrict_files(confinement, environment))
    steps.append(capabilities.drop)
    if confinement.seccomp:
        steps.append(lambda: seccomp.install(unix_sockets=confinement.gpu))
    failed: list[str] = []
    for step in steps:
        try:
            step()
        except OSError as error:
            failed.append(str(error))
    return tuple(failed)


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _restrict_files(confinement: Confinement, environment: Mapping[str, str]) -> None:
    system = system_paths(environment, gpu=confinement.gpu)
    for path in confinement.write:
        # A rule is of a folder that is there. Who may not make it does without.
        with contextlib.suppress(OSError):
            Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
    landlock.restrict(
        None if confinement.read is None else (*system.read, *confinement.read),
        system.execute,
        (*system.write, *confinement.write),
        unix_sockets=confinement.gpu,
    )
