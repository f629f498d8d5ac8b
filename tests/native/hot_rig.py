"""The loop in C between a real client and scripted workers: everything of a front end but its supervisor."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from typing_extensions import override

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.access.methods import INFER as INFER_RULE
from predictd.server.access.rules import AccessRules
from predictd.server.access.tokens import Keyring
from predictd.server.config.request_log import RequestLogRule
from predictd.server.control.memory import SegmentAdded
from predictd.server.frontend.access import Access
from predictd.server.frontend.apis import oip, predictd_v1
from predictd.server.frontend.apis.streams import Streams
from predictd.server.frontend.clients import ClientNames
from predictd.server.frontend.dispatch import Dispatcher
from predictd.server.frontend.guarded import GuardedCore
from predictd.server.frontend.holding import Holding
from predictd.server.frontend.native.hot import Hot
from predictd.server.frontend.native.server import NativeServer, load_native
from predictd.server.frontend.pools import ArenaGrowth
from predictd.server.frontend.registry import Registry
from predictd.server.frontend.request_log import LoggedService, NotedCalls
from predictd.server.frontend.routing import Routes
from predictd.server.frontend.service import Service
from predictd.server.frontend.uploads import Received, Uploads
from predictd.server.observe.recorder import FrontendRecorder
from predictd.server.transport.allocator import Block
from predictd.server.transport.pipes import make_pipe
from tests.fixtures.fake_worker import FRONTEND, KEEP_NS, FakePool, FakeWorker
from tests.fixtures.frontend import SECRET, WIDTH, publication, view
from tests.fixtures.processes import free_port
from tests.fixtures.scripted_workers import Rig
from tests.fixtures.tickets import Ticket
from tests.native.serving import MESSAGE_BYTES_MAX, RULES, UNREAD_BYTES_MAX

PREDICT = "/predictd.v1.PredictionService/Predict"
PREDICT_STREAM = "/predictd.v1.PredictionService/PredictStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"
INFER_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
BOUND_SECONDS = 60
# So many requests `started` sends.
STARTED_WITH = 2
_NO_LOG = RequestLogRule()


@dataclass(frozen=True, slots=True)
class _Limits:
    frontend: int
    in_flight_limit: int
    arena_limit_bytes: int
    arena_keep_ns: int
    max_message_bytes: int


class HotRig(Rig):
    """A front end in the test's process, whose requests come over a connection."""

    def __init__(
        self,
        *,
        in_flight: int = 64,
        queue_records: int = 1024,
        frontends: int = 1,
        keyring: Keyring | None = None,
        client_limit: int = 0,
        log: RequestLogRule = _NO_LOG,
    ) -> None:
        self._queue_records = queue_records
        self._refusal = None
        self._answers = True
        self._arena_limit_bytes = 64 << 20
        self.completions = make_pipe()
        self.sent = []
        self.segments = {}
        self.pools = {}
        self.workers = {}
        self.recorder = FrontendRecorder()
        self.growth = ArenaGrowth(FRONTEND, self._send)
        interceptors = [ClientNames(), NotedCalls()]
        self.server = NativeServer(load_native(), RULES, MESSAGE_BYTES_MAX, UNREAD_BYTES_MAX, interceptors)
        limits = _Limits(FRONTEND, in_flight, self._arena_limit_bytes, KEEP_NS, MESSAGE_BYTES_MAX)
        self.hot = Hot(self.server.command, limits, self.completions.read_fd)
        self.dispatcher = Dispatcher(
            FRONTEND,
            frontends,
            self.hot.records.read_fd,
            self.hot.python_slots,
            self.growth,
            self.recorder,
            Holding(lambda: 0),
            self.hot,
        )
        self.routes = Routes(SECRET)
        uploads = Uploads()
        clients = self.hot.client_limit(client_limit)
        parts = (self.routes, self.dispatcher, self.recorder, lambda *_: None, clients, uploads)
        self.service = Service(*parts) if log.off else LoggedService(*parts, log)
        self.access = Access(AccessRules(tokens=keyring is not None), self.recorder.refused)
        self.access.take(keyring or Keyring())
        core = GuardedCore(self.service, self.access) if self.access.by_model else self.service
        self.streams = Streams()
        received = [
            Received(predictd_v1.handlers(core, self.streams, MESSAGE_BYTES_MAX), uploads),
            Received(oip.handlers(core, self.streams, MESSAGE_BYTES_MAX), uploads),
        ]
        rules = dict.fromkeys((PREDICT, PREDICT_STREAM, INFER, INFER_STREAM), INFER_RULE)
        self.server.add_generic_rpc_handlers((Registry(received, self.access, rules),))
        self.hot.connect(self.dispatcher, self.routes, self.service, self.recorder, self.growth)
        self.hot.know_callers(self.access)
        self.server.on_hot = self.hot.on_event
        self.hot.enable(enabled=True)
        loop = asyncio.get_running_loop()
        loop.add_reader(self.hot.records.read_fd, self.dispatcher.on_completions)
        self.address = f"127.0.0.1:{free_port()}"
        self.server.add_insecure_port(self.address)
        self.channel: Any = grpc.aio.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        )

    @override
    def add_pool(self, number: int = 1) -> FakePool:
        pool = super().add_pool(number)
        self.hot.pool_attached(self.dispatcher.links.pools[number], [queue.write_fd for queue in pool.queues])
        return pool

    @override
    def add_worker(self, number: int, pool: FakePool) -> FakeWorker:
        worker = self.workers[number] = HotWorker(self, number, pool)
        return worker

    def publish(self, **changes: Any) -> None:
        """Serve model `m`."""
        message = publication(view(**changes))
        self.routes.publish(message)
        self.hot.published(message.name)

    async def end(self) -> None:
        """Stop the server; what workers and pools there are goes first."""
        await self.channel.close()
        self.server.before_end = self.hot.end
        await self.server.stop(0)
        asyncio.get_running_loop().remove_reader(self.hot.records.read_fd)
        self.hot.records.close()

    def mine(self, tickets: Sequence[Ticket]) -> list[bool]:
        """Of which tickets the loop in C has the slots."""
        return [ticket.slot >= self.hot.python_slots for ticket in tickets]


class HotWorker(FakeWorker):
    """A worker of which both halves know."""

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        link = self.rig.dispatcher.links.worker(self.number)
        assert link is not None
        self.rig.dispatcher.mirror.worker_attached(link)

    @override
    def _block(self, size_bytes: int) -> Block:
        known = set(self.arena._segments)
        block = super()._block(size_bytes)
        link = self.rig.dispatcher.links.worker(self.number)
        assert link is not None
        for segment in set(self.arena._segments) - known:
            shape = self.arena._allocator.segments[segment]
            self.rig.dispatcher.mirror.segment_added(
                self.number, segment, link.memory.segment(segment), shape.block_bytes, shape.blocks
            )
        return block


def play(
    scenario: Callable[[HotRig], Coroutine[Any, Any, None]],
    bound_seconds: float = BOUND_SECONDS,
    **options: Any,
) -> None:
    """Run a scenario, and demand afterwards that nothing is left of it."""

    async def run() -> None:
        rig = HotRig(**options)
        try:
            async with asyncio.timeout(bound_seconds):
                await scenario(rig)
                await until(lambda: rig.dispatcher.in_flight == 0 and not len(rig.hot.recovery))
                assert not list(rig.hot.outstanding())
                for pool in rig.pools:
                    rows = struct.iter_unpack("<4I", rig.server.command("arena", struct.pack("<II", pool, 0)))
                    assert not any(used for _, used, _, _ in rows), "blocks are still in use"
                await until(lambda: not sum(worker.collect_releases() for worker in rig.workers.values()))
        finally:
            rig.__exit__()
            await rig.end()

    asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the loop's thread does, or the other end of a connection."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.002)


async def tickets(pool: FakePool, count: int) -> list[Ticket]:
    """So many tickets, which come in their time."""
    found: list[Ticket] = []

    def enough() -> bool:
        found.extend(pool.read())
        return len(found) >= count

    await until(enough)
    return found


def predict(*values: float, **fields: Any) -> v1.PredictRequest:
    """A request of rows of WIDTH numbers."""
    request = v1.PredictRequest(**({"model": "m"} | fields))
    data = struct.pack(f"<{len(values)}f", *values)
    request.inputs.add(name="x", dtype=v1.FP32, shape=(len(values) // WIDTH, WIDTH), data=data)
    return request


def infer(*values: float, **fields: Any) -> oip_pb.ModelInferRequest:
    """The same in the other protocol."""
    request = oip_pb.ModelInferRequest(**({"model_name": "m"} | fields))
    request.inputs.add(name="x", datatype="FP32", shape=(len(values) // WIDTH, WIDTH))
    request.raw_input_contents.append(struct.pack(f"<{len(values)}f", *values))
    return request


def call(rig: HotRig, request: v1.PredictRequest | oip_pb.ModelInferRequest, **options: Any) -> Any:
    """Send it; the task of its answer."""
    method, kind = (
        (PREDICT, v1.PredictResponse)
        if isinstance(request, v1.PredictRequest)
        else (INFER, oip_pb.ModelInferResponse)
    )
    stub = rig.channel.unary_unary(method, response_deserializer=kind.FromString)
    return stub(request.SerializeToString(), **options)


async def refusal(waiting: Any) -> tuple[grpc.StatusCode, str]:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await waiting
    return caught.value.code(), str(caught.value.details())


async def started(rig: HotRig, *learn: float, **options: Any) -> tuple[FakePool, FakeWorker]:
    """A pool with a worker, and a shape that the loop knows: that of these values, sent with these options."""
    pool = rig.add_pool()
    worker = rig.add_worker(1, pool)
    rig.publish()
    waiting = call(rig, predict(*learn), **options)
    (ticket,) = await tickets(pool, 1)
    assert rig.mine([ticket]) == [False]
    worker.answer([ticket])
    await waiting
    # The first that meets the loop's empty arena has it grow, and goes by Python itself.
    waiting = call(rig, predict(*learn), **options)
    (ticket,) = await tickets(pool, 1)
    worker.answer([ticket])
    await waiting
    await until(
        lambda: any(isinstance(message, SegmentAdded) and message.segment >= 1 << 31 for message in rig.sent)
    )
    return pool, worker


@asynccontextmanager
async def stream(rig: HotRig, method: str, **options: Any) -> AsyncIterator[Any]:
    """An open stream."""
    opened = rig.channel.stream_stream(method)(**options)
    try:
        yield opened
    finally:
        opened.cancel()
