"""Starting a child with mask, memory policy and environment in place before exec, and what a child does first."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from predictd.server.launch.memory_policy import preferring
from predictd.server.launch.sandbox.confinement import User

_PR_SET_PDEATHSIG = 1


def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cpus: Sequence[int],
    pass_fds: Sequence[int] = (),
    numa_nodes: Sequence[int] = (),
    output: int | None = None,
    user: User | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child.

    Its affinity mask and its memory policy are inherited: the calling thread takes them for the moment of the fork,
    which is safe beside other threads, as running code between fork and exec is not. Call it from the main thread: the
    kernel sends the parent-death signal when the *thread* that made the child ends.

    Args:
        argv: Program and arguments.
        environment: The child's whole environment.
        cpus: The child's affinity mask.
        pass_fds: Descriptors that it inherits under the same numbers; all others are closed.
        numa_nodes: The memory nodes that it prefers; none leaves its memory where its CPUs are.
        output: A descriptor that becomes its standard output and its standard error; without it, it has ours.
        user: Who it is; None for whoever we are.

    Returns:
        The child, in a session of its own, so that a terminal's interrupt reaches only the supervisor.

    Raises:
        OSError: None of the CPUs exists any more, or the program cannot be started.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        with preferring(numa_nodes):
            return subprocess.Popen(
                list(argv),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                close_fds=True,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else user.groups,
            )
    finally:
        os.sched_setaffinity(0, before)


def raise_nofile_limit() -> int:
    """Raise the limit of open descriptors to the hard limit; children inherit it. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def die_with_parent(expected_parent_pid: int) -> None:
    """Let the kernel kill this process when its parent dies. A child's first act, after any change of user.

    Args:
        expected_parent_pid: The supervisor. If it died before this call there is nobody to wait for: exits.

    Raises:
        OSError: The kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl(PR_SET_PDEATHSIG): {os.strerror(errno)}")
    if os.getppid() != expected_parent_pid:
        sys.exit("the supervisor is gone")
