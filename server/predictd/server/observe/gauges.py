"""What the supervisor knows at the moment of a scrape: states, depths, sizes. Snapshots, built each time."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Literal, get_args

from predictd.server.observe.processes import Memory

LaneState = Literal["LOADING", "READY", "FAILED", "UNLOADING"]
LANE_STATES: tuple[LaneState, ...] = get_args(LaneState)


@dataclass(frozen=True, slots=True)
class LaneGauge:
    """A model version.

    Attributes:
        model: Name.
        version: Number.
        state: As the model repository shows it.
        reason: Why it failed or what it waits for, one line; else empty.
        load_seconds: From the start of its workers until all of them were warm; None before that.
        queue_limits: How many requests may wait, by priority from 1.
    """

    model: str
    version: int
    state: LaneState
    reason: str = ""
    load_seconds: float | None = None
    queue_limits: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the daemon takes requests, and what is missing.

    Attributes:
        ready: The answer of /readyz.
        lanes: Every model version.
        reasons: What else keeps the daemon from being ready, such as "draining"; one line each.
    """

    ready: bool
    lanes: tuple[LaneGauge, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueGauge:
    """Tickets that wait in one pipe, and how many may."""

    pool: str
    priority: int
    depth: int
    capacity: int


@dataclass(frozen=True, slots=True)
class WorkerGauge:
    """A worker's place in its pool and the state of whoever has it now; a place outlives its incarnations."""

    pool: str
    worker: int
    state: str


@dataclass(frozen=True, slots=True)
class ProcessGauge:
    """What a process takes.

    Attributes:
        role: "supervisor", "frontend" or "worker".
        index: Its place: "0" for the supervisor, a front end's number, "<pool>/<number>" for a worker.
        memory: What it has in memory; None for a process that is gone.
        cpu_seconds: CPU time of all who had the place.
        arena_bytes: Segments of shared memory that it owns; they are part of what is resident once written.
    """

    role: str
    index: str
    memory: Memory | None
    cpu_seconds: float
    arena_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PlanGauge:
    """What the plan gives a child.

    Attributes:
        role: "frontend" or "worker".
        index: Its place, as in ProcessGauge.
        cpus: Its affinity mask, as the kernel writes it.
        cpu_count: How many these are.
        threads: Threads that compute at once.
    """

    role: str
    index: str
    cpus: str
    cpu_count: int
    threads: int


@dataclass(frozen=True, slots=True)
class MemoryGauge:
    """The memory that the daemon as a whole may take.

    Attributes:
        limit_bytes: The limit, of a control group or the machine, that leaves the least.
        headroom_bytes: What it leaves.
        arena_limit_bytes: For all arenas together.
    """

    limit_bytes: int
    headroom_bytes: int
    arena_limit_bytes: int


@dataclass(frozen=True, slots=True)
class GpuGauge:
    """A GPU that workers use.

    Attributes:
        gpu: Its PCI bus id.
        utilization_ratio: Of the time, how much something ran; of whatever process.
    """

    gpu: str
    used_bytes: int
    total_bytes: int
    utilization_ratio: float
    temperature_celsius: int


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Versions of what runs."""

    version: str
    python: str
    onnxruntime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Everything on /metrics that no child counts.

    Attributes:
        readiness: The lanes and whether the daemon is ready.
        build: Versions of what runs.
        start_unix_seconds: When the supervisor started.
        queues: One entry a pipe.
        in_flight: Requests accepted and not answered, by the front end's place.
        workers: One entry a place in a pool.
        worker_states: Every state that a worker can have.
        worker_restarts: Since the start, by pool. Pools without any are listed too.
        frontend_restarts: Since the start, by the front end's place.
        kills: Since the start, of children that hung, by role and reason.
        given_back_bytes: Shared memory that was given back since the start, by role and place.
        processes: The supervisor and its children.
        plans: What the plan gives each child.
        memory: What the daemon may take and what is left; None where the kernel does not show it.
        gpus: One entry a GPU.
        certificate_expiry_unix_seconds: Until when the certificate that clients are shown is valid, if there is one.
        credential_failures: How often what lay in a file that changed could not be taken, by what it is.
    """

    readiness: Readiness
    build: BuildInfo
    start_unix_seconds: float
    queues: tuple[QueueGauge, ...] = ()
    in_flight: Mapping[int, int] = field(default_factory=dict)
    workers: tuple[WorkerGauge, ...] = ()
    worker_states: tuple[str, ...] = ()
    worker_restarts: Mapping[str, int] = field(default_factory=dict)
    frontend_restarts: Mapping[int, int] = field(default_factory=dict)
    kills: Mapping[tuple[str, str], int] = field(default_factory=dict)
    given_back_bytes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    processes: tuple[ProcessGauge, ...] = ()
    plans: tuple[PlanGauge, ...] = ()
    memory: MemoryGauge | None = None
    gpus: tuple[GpuGauge, ...] = ()
    certificate_expiry_unix_seconds: float | None = None
    credential_failures: Mapping[str, int] = field(default_factory=dict)


def build_info() -> BuildInfo:
    """Versions as the installed distributions name them; the runtime itself is not imported."""
    return BuildInfo(
        version=metadata.version("predictd"),
        python=platform.python_version(),
        onnxruntime=metadata.version("onnxruntime"),
    )
