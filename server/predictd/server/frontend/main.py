"""Entry of the front end process: `python -m predictd.server.frontend.main CONTROL_FD SUPERVISOR_PID LOG_FD CRASH_FD`.

One event loop (uvloop) carries the gRPC server, the completion pipe and the control channel.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from collections.abc import Coroutine
from typing import Any

import grpc.aio
import uvloop
from setproctitle import setproctitle

from predictd.server.access.material import read_material
from predictd.server.access.tokens import parse_tokens
from predictd.server.control.channel import Channel, ChannelClosedError
from predictd.server.control.commands import CommandDone, LabelsDone
from predictd.server.control.memory import Growth, SegmentAdded, SegmentRetired, SegmentUsable
from predictd.server.control.message import Message
from predictd.server.control.messages import (
    Ack,
    AnyMessage,
    AttachPool,
    AttachWorker,
    Collect,
    Drain,
    Drained,
    FrontendCounts,
    FrontendInit,
    Hello,
    Listen,
    Listening,
    LogLevel,
    Ping,
    Pong,
    PoolGone,
    Ready,
    RetireLane,
    Statistics,
    Stop,
    TakeMaterial,
    WorkerGone,
)
from predictd.server.control.publication import PublishModel
from predictd.server.frontend.access import Access
from predictd.server.frontend.answer_limit import ResponseLimit
from predictd.server.frontend.apis import health
from predictd.server.frontend.apis.streams import Streams
from predictd.server.frontend.clients import ClientLimit
from predictd.server.frontend.dispatch import Dispatcher
from predictd.server.frontend.fatal import or_exit
from predictd.server.frontend.guarded import GuardedChanges, GuardedControl, GuardedCore
from predictd.server.frontend.holding import Holding, awake_clock
from predictd.server.frontend.leaving import Leaving
from predictd.server.frontend.mirror import NO_MIRROR, Mirror
from predictd.server.frontend.native.hot import Hot
from predictd.server.frontend.native.server import NativeServer
from predictd.server.frontend.pauses import watch_collections, watch_loop
from predictd.server.frontend.pools import ArenaGrowth, WorkerLink
from predictd.server.frontend.registry import Registry
from predictd.server.frontend.request_log import LoggedService
from predictd.server.frontend.routing import Routes
from predictd.server.frontend.service import Service
from predictd.server.frontend.services import SERVICES, Parts, services
from predictd.server.frontend.serving import make_server, open_ports, show_certificate
from predictd.server.frontend.tls import ServerTls
from predictd.server.frontend.unread import Unread
from predictd.server.frontend.uploads import Received, Uploads
from predictd.server.launch.child_start import Inherited, begin_child
from predictd.server.observe.logs import configure_child, report_left_out, set_level
from predictd.server.observe.recorder import FrontendRecorder
from predictd.server.transport.abi import ABI_VERSION
from predictd.server.transport.claims import CLAIMS_BYTES
from predictd.server.transport.memory import map_shared

GC_THRESHOLD = 50_000
# The server's stop cancels the calls that it has received and not yet handed over, and clients do not retry
# CANCELLED. So they are refused with UNAVAILABLE until none came for a moment; those that insist are not waited for.
QUIET_SECONDS = 0.1
REFUSE_SECONDS_MAX = 1.0
# What a server that was replaced has in hand may take so long.
REPLACED_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Frontend:
    """The wiring of one front end process."""

    def __init__(self, channel: Channel, init: FrontendInit, completion_fd: int) -> None:
        self._channel = channel
        self._init = init
        self._recorder = FrontendRecorder()
        self._growth = ArenaGrowth(init.frontend, self.send)
        self._server = self._make_server()
        self._hot: Hot | None = None
        in_flight_limit = init.in_flight_limit
        if isinstance(self._server, NativeServer):
            # The loop in C reads the completions, and passes on what is Python's.
            self._hot = Hot(self._server.command, init, completion_fd)
            completion_fd, in_flight_limit = self._hot.records.read_fd, self._hot.python_slots
        self._mirror: Mirror = self._hot or NO_MIRROR
        self._dispatcher = Dispatcher(
            init.frontend,
            init.frontends,
            completion_fd,
            in_flight_limit,
            self._growth,
            self._recorder,
            Holding(awake_clock()),
            self._mirror,
        )
        limit = ResponseLimit.of(init.max_response_bytes, init.max_message_bytes)
        self._routes = Routes(init.shape_secret, response_limit=limit)
        limit_of_client = init.max_concurrent_per_client
        clients = self._hot.client_limit(limit_of_client) if self._hot else ClientLimit(limit_of_client)
        self._uploads = Uploads(init.upload_limit_bytes)
        core = (self._routes, self._dispatcher, self._recorder, self.send, clients, self._uploads)
        rule = init.request_log
        self._service = Service(*core) if rule.off else LoggedService(*core, rule)
        self._access = Access(init.access, self._recorder.refused)
        self._tls = ServerTls(client_certificates=init.access.client_certificates)
        self._changes = GuardedChanges(self.send, self._access)
        self._control = GuardedControl(self.send, self._access)
        self._health = health.Health(SERVICES, self._access.sees)
        self._unread = Unread(init.unread_limit_bytes)
        self._streams = Streams(self._unread, self._uploads)
        self._leaving = Leaving()
        self._add_services()
        if self._hot is not None and isinstance(self._server, NativeServer):
            self._hot.connect(self._dispatcher, self._routes, self._service, self._recorder, self._growth)
            self._hot.know_callers(self._access)
            self._server.on_hot = self._hot.on_event
            self._server.before_end = self._part
            self._hot.enable(enabled=True)
        self._finished = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        watch_loop(loop, self._recorder.loop_lag)
        loop.add_reader(completion_fd, or_exit(self._dispatcher.on_completions))
        loop.add_reader(channel.fileno(), or_exit(self._receive))

    async def run(self) -> None:
        """Serve until drained or stopped."""
        await self._finished.wait()

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        """Send to the supervisor. Its own loop always reads, so the socket's buffer is room enough."""
        self._channel.send(message, fds or ())

    def _make_server(self) -> grpc.aio.Server | NativeServer:
        return make_server(self._init, self._deafened)

    def _add_services(self) -> None:
        core = GuardedCore(self._service, self._access) if self._access.by_model else self._service
        parts = Parts(core, self._streams, self._control, self._changes, self._health, self._unread)
        received = [Received(service, self._uploads) for service in services(self._init, parts)]
        self._server.add_generic_rpc_handlers((Registry(received, self._access),))

    def _part(self) -> None:
        """The loop in C has nothing left to do and is about to end."""
        if self._hot is not None:
            self._hot.end()
        self._mirror = self._dispatcher.mirror = NO_MIRROR

    # Control --------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        while True:
            try:
                message, fds = self._channel.receive(wait=False)
            except BlockingIOError:
                return
            except ChannelClosedError:
                _log.warning("the supervisor is gone")
                os._exit(1)
            self._handle(message, fds)

    def _handle(self, message: AnyMessage, fds: list[int]) -> None:  # noqa: C901, PLR0912, PLR0915 - one case a message
        match message:
            case AttachPool(seq=seq, pool=pool, name=name, queue_limit=limit):
                self._dispatcher.links.attach_pool(
                    pool, name, fds, limit, self._init.arena_limit_bytes, self._init.arena_keep_ns
                )
                self._mirror.pool_attached(self._dispatcher.links.pools[pool], fds)
                self.send(Ack(seq=seq))
            case AttachWorker():
                self._attach_worker(message, fds)
            case SegmentAdded():
                self._add_segment(message, fds)
            case PublishModel(seq=seq):
                self._routes.publish(message)
                self._dispatcher.links.shared(self._routes.lanes_of_pools())
                self._mirror.published(message.name)
                self._health.update(self._service)
                self.send(Ack(seq=seq))
            case RetireLane(seq=seq, lane=lane):
                self._mirror.retire(lane)
                self._dispatcher.retirements.when_idle(lane, lambda: self.send(Ack(seq=seq)))
            case Growth(granted=granted, reason=reason):
                self._growth.granted(None if granted else reason)
            case SegmentUsable(pool=pool, segment=segment):
                self._growth.usable(pool, segment)
            case WorkerGone(worker=worker, dead=dead):
                self._dispatcher.worker_gone(worker, dead=dead)
            case PoolGone(pool=pool, reason=reason):
                self._dispatcher.pool_gone(pool, reason)
            case Ready(ready=ready):
                self._service.is_ready = ready
                self._health.update(self._service)
            case Collect(seq=seq):
                self._count(seq)
            case LogLevel(level=level):
                set_level(level)
            case SegmentRetired(seq=seq, owner=owner, segment=segment):
                self._remove_segment(owner, segment)
                self.send(Ack(seq=seq))
            case Ping():
                self.send(Pong())
                self._dispatcher.links.give_back()
                self._mirror.give_back(time.monotonic_ns())
            case Statistics(seq=seq, rows=rows, last=last):
                self._service.on_statistics(seq, rows, last=last)
            case LabelsDone(seq=seq, status=status, message=text):
                self._changes.on_done(seq, status, text)
            case CommandDone():
                self._control.done(message)
            case TakeMaterial():
                self._take_material(fds[0])
            case Listen():
                self._spawn(self._listen())
            case Drain():
                self._spawn(self._drain(message))
            case Stop():
                self._finished.set()
            case _:
                raise TypeError(f"a front end got {type(message).__name__}. This is a bug.")

    def _attach_worker(self, message: AttachWorker, fds: list[int]) -> None:
        release_fd, claims_fd = fds
        claims = map_shared(claims_fd, CLAIMS_BYTES)
        os.close(claims_fd)
        link = WorkerLink(message.worker, message.pool, release_fd, claims)
        self._dispatcher.links.attach_worker(link)
        self._mirror.worker_attached(link)
        self.send(Ack(seq=message.seq))

    def _add_segment(self, message: SegmentAdded, fds: list[int]) -> None:
        worker = self._dispatcher.links.worker(message.owner)
        if worker is None:
            os.close(fds[0])
        else:
            shape = (message.block_bytes, message.blocks)
            worker.memory.add_segment(message.segment, fds[0], *shape)
            view = worker.memory.segment(message.segment)
            self._mirror.segment_added(message.owner, message.segment, view, *shape)
        self.send(Ack(seq=message.seq))

    def _remove_segment(self, owner: int, segment: int) -> None:
        worker = self._dispatcher.links.worker(owner)
        if worker is not None:
            self._mirror.segment_removed(owner, segment)
            worker.memory.remove_segment(segment)

    def _count(self, seq: int) -> None:
        report_left_out()
        self._mirror.collect()
        delta = self._recorder.take()
        self.send(
            FrontendCounts(
                seq=seq,
                delta=delta,
                in_flight=self._dispatcher.in_flight,
                arena_bytes=self._dispatcher.links.arena_bytes + self._mirror.arena_bytes,
                waiting=self._dispatcher.waiting(time.monotonic_ns()),
            )
        )

    def _take_material(self, fd: int) -> None:
        material = read_material(fd)
        self._access.take(parse_tokens(material.tokens))
        if material.certificate:
            show_certificate(self._server, self._init, self._tls, material)

    # Port -----------------------------------------------------------------------------------------------------

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("the front end failed", exc_info=task.exception())
            os._exit(1)

    async def _open(self) -> None:
        open_ports(self._server, self._init, self._tls)
        await self._server.start()

    def _deafened(self) -> None:
        if not self._service.draining:
            self._spawn(self._replace())

    async def _replace(self) -> None:
        """Have another server take new calls. The one before finishes what it has, and sends its clients over."""
        old, self._server = self._server, self._make_server()
        self._add_services()
        # In this order: who cannot connect for a moment tries again, who is cancelled does not.
        stopping = asyncio.create_task(old.stop(REPLACED_SECONDS))
        self._leaving.add(stopping)
        await asyncio.sleep(0)
        await self._open()
        await stopping

    async def _listen(self) -> None:
        await self._open()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 50)
        watch_collections(self._recorder.gc_pauses)
        self._uploads.watch(asyncio.get_running_loop(), lambda: not self._dispatcher.in_flight)
        self.send(Listening())

    async def _drain(self, message: Drain) -> None:
        """Say that we leave, let balancers notice, refuse what still comes, finish what was accepted."""
        self._service.draining = True
        self._health.shut_down()
        await asyncio.sleep(message.lame_duck_ns / 1e9)
        self._health.close()
        self._streams.close()
        if isinstance(self._server, NativeServer):
            self._server.close_streams()
        finish_by_ns = time.monotonic_ns() + message.grace_ns
        await self._refuse(min(message.grace_ns / 1e9, REFUSE_SECONDS_MAX))
        left_seconds = max(finish_by_ns - time.monotonic_ns(), 0) / 1e9
        await asyncio.gather(self._server.stop(left_seconds), self._leaving.wait(left_seconds))
        in_time = time.monotonic_ns() < finish_by_ns
        self._count(0)
        self.send(Drained(complete=in_time or not self._dispatcher.in_flight))

    async def _refuse(self, seconds: float) -> None:
        """Refuse requests until none came for a moment."""
        loop, service = asyncio.get_running_loop(), self._service
        deadline = loop.time() + seconds
        service.refusing, seen = True, -1
        if self._hot is not None:
            self._hot.enable(enabled=False)
        while service.refused != seen and loop.time() < deadline:
            seen = service.refused
            await asyncio.sleep(QUIET_SECONDS)


def _is_ours(record: logging.LogRecord) -> bool:
    """False for gRPC's reports, with a traceback, of what clients do.

    They leave before an answer could be sent, and they send metadata that are no text.
    """
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ not in ("ExecuteBatchError", "UnicodeDecodeError")


async def _run(inherited: Inherited) -> None:
    channel = Channel.from_fd(inherited.control_fd)
    channel.send(Hello(pid=os.getpid(), abi=ABI_VERSION))
    try:
        init, fds = channel.receive()
    except ChannelClosedError:
        return
    if not isinstance(init, FrontendInit):
        raise TypeError(f"a front end got {type(init).__name__} first. This is a bug.")
    setproctitle(f"predictd: frontend {init.index}")
    configure_child(inherited.log_fd, init.log_level)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_ours)
    await Frontend(channel, init, fds[0]).run()


def main() -> None:
    """Run a front end."""
    uvloop.run(_run(begin_child(sys.argv[1:])))
    # Interpreter shutdown would join gRPC's threads; everything that matters was answered and closed.
    os._exit(0)


if __name__ == "__main__":
    main()
