"""What a worker shall be kept from: decided by the supervisor, told to the worker, done by it before all else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Support:
    """What this system has to confine a process with.

    Attributes:
        landlock_abi: Version of Landlock, 0 for none.
        seccomp: Filters of system calls can be installed.
        gpu: There are devices of GPUs.
    """

    landlock_abi: int = 0
    seccomp: bool = False
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """Who a worker is.

    Attributes:
        name: For people.
        groups: That it is in besides its own.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """What the operator asks for.

    Attributes:
        mode: "auto", "require" or "off".
        user: That workers shall be; None for that of the daemon.
        read: What they may read beside the system: where the models are.
        write: What they may write: the cache.
        unbounded: Why they may read everything; empty where they may not.
    """

    mode: str = "off"
    user: User | None = None
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    unbounded: str = ""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a worker keeps itself from.

    Attributes:
        required: A worker that cannot do all of it must not go on.
        seccomp: Filter system calls.
        landlock: Restrict files.
        read: Folders and files that may be read beside those of the system; None for everything.
        write: Those that may be written, too.
        gpu: Devices of GPUs, their files and services may be used.
    """

    required: bool = False
    seccomp: bool = False
    landlock: bool = False
    read: tuple[str, ...] | None = None
    write: tuple[str, ...] = ()
    gpu: bool = False

    def to_json(self) -> str:
        """As an argument of the process."""
        return json.dumps(asdict(self))


def confinement_from_json(text: str) -> Confinement | None:
    """What `to_json` wrote; None of an empty text."""
    if not text:
        return None
    fields = json.loads(text)
    fields["read"] = None if fields["read"] is None else tuple(fields["read"])
    return Confinement(**{**fields, "write": tuple(fields["write"])})


def missing(request: SandboxRequest, support: Support) -> str:
    """What a required sandbox lacks here; empty if nothing or if it is not required."""
    return _lacks(support) if request.mode == "require" else ""


def sandbox_warnings(request: SandboxRequest, support: Support) -> tuple[str, ...]:
    """What the plan warns of."""
    lacks = _lacks(support)
    if request.mode == "off" or not lacks:
        return ()
    return (f"no {lacks} here: workers, which load the models, are not kept from all that they could be",)


def _lacks(support: Support) -> str:
    found = {"seccomp": support.seccomp, "Landlock": support.landlock_abi > 0}
    return " and ".join(name for name, there in found.items() if not there)


def confine(
    request: SandboxRequest, support: Support, *, own_engine: bool
) -> tuple[Confinement | None, tuple[str, ...]]:
    """What a pool's workers are kept from, and the lines that say so.

    Args:
        request: Of the operator.
        support: Of the system.
        own_engine: The pool has an engine that is not built in: code of the operator's.
    """
    if request.mode == "off":
        return None, ()
    if own_engine and request.mode == "auto":
        why = "an engine of your own runs in it, which may need anything"
        return None, (f"sandbox: none, as {why}; worker_sandbox=require binds it, too",)
    chosen = Confinement(
        required=request.mode == "require",
        seccomp=support.seccomp,
        landlock=support.landlock_abi > 0,
        read=None if request.unbounded else request.read,
        write=request.write,
        gpu=support.gpu,
    )
    return chosen, tuple(_reasons(chosen, support, request.unbounded))


def _reasons(chosen: Confinement, support: Support, unbounded: str) -> Sequence[str]:
    rights = "sandbox: no new privileges, no core dumps"
    lines = [f"{rights}, no network, no tracing, no mounts (seccomp)" if chosen.seccomp else rights]
    if not chosen.seccomp:
        lines.append("sandbox: the network is open to it, as seccomp is not available here")
    if not chosen.landlock:
        lines.append("sandbox: files are open to it as to its user, as Landlock is not available here")
        return lines
    reads = f"reads everything, as {unbounded}" if unbounded else "reads the models and the system"
    lines.append(f"sandbox: {reads}, writes the cache and temporary files (Landlock {support.landlock_abi})")
    return lines
