"""Every message of the control channel. One socketpair a child; descriptors travel beside the message.

Requests that must be answered carry a `seq` that the answer repeats.
"""

from __future__ import annotations

import msgspec

from predictd.server.access.rules import AccessRules
from predictd.server.config.connections import ConnectionRules
from predictd.server.config.lane import LaneConfig, LaneSignature
from predictd.server.config.request_log import RequestLogRule
from predictd.server.control.commands import (
    CommandDone,
    LabelsDone,
    LoadModel,
    Reload,
    ServeList,
    SetLabel,
    SetLogLevel,
    SetSplit,
    UnloadModel,
)
from predictd.server.control.memory import (
    Growth,
    GrowthRequest,
    SegmentAdded,
    SegmentRetired,
    SegmentUsable,
)
from predictd.server.control.message import Message
from predictd.server.control.publication import PublishModel
from predictd.server.observe.deltas import FrontendDelta, LaneStatisticsRow, WaitingSeries, WorkerDelta

# Both kinds of children ---------------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """Child: I run. `abi` is that of the transport."""

    pid: int
    abi: int


class Ack(Message, frozen=True, kw_only=True):
    """Child: message `seq` took effect."""

    seq: int


class Collect(Message, frozen=True, kw_only=True):
    """Supervisor: send what you counted since the last time."""

    seq: int


class Ping(Message, frozen=True, kw_only=True):
    """Supervisor: are you there? Sent again only once it was answered."""


class Pong(Message, frozen=True, kw_only=True):
    """Child: I am."""


class LogLevel(Message, frozen=True, kw_only=True):
    """Supervisor: the least level of what you log, from now on."""

    level: str


# Worker -------------------------------------------------------------------------------------------------------


class WorkerInit(Message, frozen=True, kw_only=True):
    """Who a worker is.

    Descriptors: queue read ends by priority, carry read, carry write, baton read, baton write, leader lock, release
    read end.
    """

    worker: int
    pool: int
    pool_name: str
    index: int
    workers: int
    priorities: int
    arena_limit_bytes: int
    arena_keep_ns: int
    lane_count: int
    threads: int
    cache_directory: str
    cache_limit_bytes: int
    log_level: str


class AddLanes(Message, frozen=True, kw_only=True):
    """Lanes to load; loading starts when `lane_count` of them came."""

    lanes: list[LaneConfig]


class AttachFrontend(Message, frozen=True, kw_only=True):
    """A frontend whose tickets may come. Descriptor: write end of its completion pipe."""

    seq: int
    frontend: int


class DetachFrontend(Message, frozen=True, kw_only=True):
    """A frontend that is dead: forget its memory, drop its tickets, take its blocks back."""

    frontend: int


class LaneLoading(Message, frozen=True, kw_only=True):
    """Worker: I start to load this lane, or go on with it. Names the culprit should I die.

    Attributes:
        progress: How far it is, one line; empty at the start.
    """

    lane: int
    progress: str = ""


class LaneLoaded(Message, frozen=True, kw_only=True):
    """Worker: the lane is warm."""

    lane: int
    signature: LaneSignature
    load_seconds: float
    warmup_seconds: float


class LaneFailed(Message, frozen=True, kw_only=True):
    """Worker: the lane cannot be served, in one line."""

    lane: int
    reason: str


class ClaimTable(Message, frozen=True, kw_only=True):
    """Worker: my claim table, one descriptor."""


class RemoveLane(Message, frozen=True, kw_only=True):
    """Supervisor: nobody asks for this lane any more, drop it."""

    lane: int


class Warm(Message, frozen=True, kw_only=True):
    """Worker: every lane was loaded or failed."""


class Serve(Message, frozen=True, kw_only=True):
    """Supervisor: everything is mapped; take tickets."""


class Stop(Message, frozen=True, kw_only=True):
    """Supervisor: finish the run in hand and exit."""


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """How a GPU does.

    Attributes:
        gpu: Its PCI bus id.
        utilization_percent: Of the time since the library's last look, how much something ran.
    """

    gpu: str
    used_bytes: int
    total_bytes: int
    utilization_percent: int
    temperature_celsius: int


class WorkerCounts(Message, frozen=True, kw_only=True):
    """Worker: the answer to Collect."""

    seq: int
    delta: WorkerDelta
    arena_bytes: int
    gpus: list[GpuSample] = msgspec.field(default_factory=list)


# Frontend -----------------------------------------------------------------------------------------------------


class FrontendInit(Message, frozen=True, kw_only=True):
    """Who a frontend is, and how many there are; `unix` is its socket, or empty; `native`: without grpcio's server.

    Descriptor: read end of its completion pipe.
    """

    frontend: int
    index: int
    frontends: int
    native: bool
    addresses: list[str]
    unix: str
    in_flight_limit: int
    arena_limit_bytes: int
    arena_keep_ns: int
    unread_limit_bytes: int
    upload_limit_bytes: int
    max_message_bytes: int
    max_response_bytes: int
    max_concurrent_per_client: int
    connections: ConnectionRules
    tfs_tensor_content: bool
    access: AccessRules
    shape_secret: bytes
    request_log: RequestLogRule
    log_level: str


class TakeMaterial(Message, frozen=True, kw_only=True):
    """Supervisor: certificate, key and tokens, from now on. Descriptor: a file in memory that holds them."""


class AttachPool(Message, frozen=True, kw_only=True):
    """A pool whose queues tickets go to. Descriptors: queue write ends by priority."""

    seq: int
    pool: int
    name: str
    priorities: int
    queue_limit: int


class AttachWorker(Message, frozen=True, kw_only=True):
    """A worker whose answers may come. Descriptors: release write end, claim table."""

    seq: int
    worker: int
    pool: int


class WorkerGone(Message, frozen=True, kw_only=True):
    """The worker was reaped. `dead`: it did not leave by itself, so what it held has to be found again."""

    worker: int
    pool: int
    dead: bool


class PoolGone(Message, frozen=True, kw_only=True):
    """No worker of the pool is left and none will come: fail what waits in it, for this reason."""

    pool: int
    reason: str


class RetireLane(Message, frozen=True, kw_only=True):
    """Supervisor: acknowledge once nothing of this lane is outstanding. It is in no publication any more."""

    seq: int
    lane: int


class Listen(Message, frozen=True, kw_only=True):
    """Open the port."""


class Listening(Message, frozen=True, kw_only=True):
    """Frontend: the port is open."""


class Ready(Message, frozen=True, kw_only=True):
    """Whether the daemon as a whole is ready."""

    ready: bool


class Drain(Message, frozen=True, kw_only=True):
    """Report NOT_SERVING, wait `lame_duck_ns`, finish what was accepted within `grace_ns`, then say Drained."""

    lame_duck_ns: int
    grace_ns: int


class Drained(Message, frozen=True, kw_only=True):
    """Frontend: I answer no more. `complete`: nothing that was accepted had to be cut off."""

    complete: bool


class FrontendCounts(Message, frozen=True, kw_only=True):
    """Frontend: the answer to Collect."""

    seq: int
    delta: FrontendDelta
    in_flight: int
    arena_bytes: int
    waiting: tuple[WaitingSeries, ...] = ()


class StatisticsRequest(Message, frozen=True, kw_only=True):
    """Frontend: what are the statistics of all lanes?"""

    seq: int


class Statistics(Message, frozen=True, kw_only=True):
    """Supervisor: a part of the answer; `last` ends it."""

    seq: int
    rows: list[LaneStatisticsRow]
    last: bool


AnyMessage = (
    Hello
    | Ack
    | Collect
    | Ping
    | Pong
    | LogLevel
    | GrowthRequest
    | Growth
    | SegmentAdded
    | SegmentUsable
    | SegmentRetired
    | WorkerInit
    | AddLanes
    | RemoveLane
    | AttachFrontend
    | DetachFrontend
    | LaneLoading
    | LaneLoaded
    | LaneFailed
    | ClaimTable
    | Warm
    | Serve
    | Stop
    | WorkerCounts
    | FrontendInit
    | TakeMaterial
    | AttachPool
    | AttachWorker
    | WorkerGone
    | PoolGone
    | PublishModel
    | SetLabel
    | SetSplit
    | LabelsDone
    | RetireLane
    | Listen
    | Listening
    | Ready
    | Drain
    | Drained
    | FrontendCounts
    | StatisticsRequest
    | Statistics
    | LoadModel
    | UnloadModel
    | Reload
    | ServeList
    | SetLogLevel
    | CommandDone
)
