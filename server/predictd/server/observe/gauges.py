"""What the supervisor knows at the moment of a scrape: states, depths, sizes. Snapshots, built each time."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

LaneState = Literal["LOADING", "READY", "FAILED", "UNLOADING"]
LANE_STATES: tuple[LaneState, ...] = get_args(LaneState)

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class LaneGauge:
    """A model version.

    Attributes:
        model: Name.
        version: Number.
        state: As the model repository shows it.
        reason: Why it failed or what it waits for, one line; else empty.
        load_seconds: From the start of its workers until all of them were warm; None before that.
    """

    model: str
    version: int
    state: LaneState
    reason: str = ""
    load_seconds: float | None = None


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
    """Tickets that wait in one pipe."""

    pool: str
    priority: int
    depth: int


@dataclass(frozen=True, slots=True)
class WorkerGauge:
    """A worker's place in its pool and the state of whoever has it now; a place outlives its incarnations."""

    pool: str
    worker: int
    state: str


@dataclass(frozen=True, slots=True)
class ProcessGauge:
    """Memory of a process.

    Attributes:
        role: "supervisor", "frontend" or "worker".
        index: Its place: "0" for the supervisor, a front end's number, "<pool>/<number>" for a worker.
        resident_bytes: As `resident_bytes` says; None for a process that is gone.
        arena_bytes: Segments of shared memory that it owns; they are part of what is resident once written.
    """

    role: str
    index: str
    resident_bytes: int | None
    arena_bytes: int = 0


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
        kills: Since the start, of children that hung, by role and reason.
        given_back_bytes: Shared memory that was given back since the start, by role and place.
        processes: The supervisor and its children.
        gpus: One entry a GPU.
    """

    readiness: Readiness
    build: BuildInfo
    start_unix_seconds: float
    queues: tuple[QueueGauge, ...] = ()
    in_flight: Mapping[int, int] = field(default_factory=dict)
    workers: tuple[WorkerGauge, ...] = ()
    worker_states: tuple[str, ...] = ()
    worker_restarts: Mapping[str, int] = field(default_factory=dict)
    kills: Mapping[tuple[str, str], int] = field(default_factory=dict)
    given_back_bytes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    processes: tuple[ProcessGauge, ...] = ()
    gpus: tuple[GpuGauge, ...] = ()


def build_info() -> BuildInfo:
    """Versions as the installed distributions name them; the runtime itself is not imported."""
    return BuildInfo(
        version=metadata.version("predictd"),
        python=platform.python_version(),
        onnxruntime=metadata.version("onnxruntime"),
    )


def resident_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> dict[int, int]:
    """Resident memory of processes, shared pages included.

    Args:
        pids: Process ids. Those that are gone are left out of the answer.
        proc: Where procfs is mounted.
    """
    resident = {}
    for pid in pids:
        try:
            statm = (proc / str(pid) / "statm").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue
        resident[pid] = int(statm.split()[1]) * _PAGE_BYTES
    return resident
