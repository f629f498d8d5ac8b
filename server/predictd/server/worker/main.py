"""The worker process, once `predictd.server.worker.start` has put it into its sandbox; it takes the same arguments.

Two threads. The run loop (the main thread) loads, leads, runs and answers. The control thread maps memory, passes
answers of the supervisor on, and ends the process when the supervisor is gone, also during a long run.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import select
import sys
import threading
import time
from collections import deque

from setproctitle import setproctitle

from predictd.engines.api import DeviceLostError, GivesBack
from predictd.server.config.devices import device_of
from predictd.server.control.channel import Channel, ChannelClosedError
from predictd.server.control.memory import Growth, SegmentAdded, SegmentRetired, SegmentUsable
from predictd.server.control.message import Message
from predictd.server.control.messages import (
    Ack,
    AddLanes,
    AnyMessage,
    AttachFrontend,
    ClaimTable,
    Collect,
    DetachFrontend,
    Hello,
    LaneLoaded,
    LogLevel,
    Ping,
    Pong,
    RemoveLane,
    Serve,
    Stop,
    Warm,
    WorkerCounts,
    WorkerInit,
)
from predictd.server.launch.child_start import begin_child
from predictd.server.observe.logs import configure_child, report_left_out, set_level
from predictd.server.observe.recorder import WorkerRecorder
from predictd.server.transport.abi import ABI_VERSION
from predictd.server.transport.claims import ClaimWriter
from predictd.server.worker.batch import Batch
from predictd.server.worker.engine_memory import EngineMemory, inputs_bytes
from predictd.server.worker.giving_back import ask_engines, run_made_up
from predictd.server.worker.gpus import Gpus
from predictd.server.worker.intake import Intake
from predictd.server.worker.lanes import WarmLane, wire_signature
from predictd.server.worker.loading import Loader
from predictd.server.worker.planning import LaneRules, Shares
from predictd.server.worker.request_memory import FrontendMemory
from predictd.server.worker.response_memory import NoResponseMemoryError, ResponseMemory
from predictd.server.worker.runner import LoadedLane, Runner
from predictd.server.worker.token import LeaderToken

FOLLOWER_POLL_MS = 50
# Young objects of a request die at once; a higher threshold keeps collections, and their pauses, off the path.
GC_THRESHOLD = 50_000

_log = logging.getLogger(__name__)


class Worker:
    """The state that both threads share, and which of them owns what."""

    def __init__(self, channel: Channel, init: WorkerInit, fds: list[int]) -> None:
        queue_fds, rest = fds[: init.priorities], fds[init.priorities :]
        carry_read, carry_write, baton_read, baton_write, lock, release = rest
        self._channel = channel
        self._init = init
        self._send_lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stop = False
        self._serve = False
        self._look_back = False
        self._idle_lanes: deque[int] = deque()
        self._gone_frontends: deque[int] = deque()
        self._memory = FrontendMemory()
        self._claims = ClaimWriter()
        self._recorder = WorkerRecorder()
        self._token = LeaderToken(lock, baton_read, baton_write, contended=init.workers > 1)
        self._responses = ResponseMemory(
            init.worker, init.pool, init.arena_limit_bytes, init.arena_keep_ns, release, self.send
        )
        self._runner = Runner(init.worker, self._memory, self._responses, self._claims, self._recorder)
        self._intake = Intake(
            queue_fds,
            (carry_read, carry_write),
            self._wake_fd,
            self._memory,
            self._claims,
            self._runner.drop,
            alone=init.workers == 1,
        )
        self._lanes: dict[int, LoadedLane] = {}
        self._rules: dict[int, LaneRules] = {}
        self._shares = Shares()
        self._gpus = Gpus()
        self._removed: deque[int] = deque()
        self._loader = Loader(init, self.send, self._wake)

    # Run loop -------------------------------------------------------------------------------------------------

    def main(self) -> None:
        """Load every lane, say so, and serve until told to stop."""
        self.send(ClaimTable(), [self._claims.fd])
        for config in self._loader.first():
            self._loader.load(config)
            self._keep_house()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 50)
        self.send(Warm())
        self._loader.warm()
        self._await_serve()
        self._serve_tickets()

    def _await_serve(self) -> None:
        """Wait until tickets may be taken; lanes that come meanwhile are taken in."""
        woken = select.poll()
        woken.register(self._wake_fd, select.POLLIN)
        while self._keep_house() and not self._serve:
            woken.poll()
            os.eventfd_read(self._wake_fd)

    def _take_in(self, warm: WarmLane) -> None:
        """From now on the lane is served."""
        lane = warm.lane
        self._memory.pins.add_engine(lane.loaded)
        self._gpus.use(device_of(lane.config.device, self._init.index))
        self._reserve_answers(lane)
        config = lane.config
        if isinstance(lane.engine, GivesBack):
            warmed_bytes = inputs_bytes(lane.signature, config.max_batch_size)
            lane.memory = EngineMemory(self._init.arena_keep_ns, warmed_bytes)
        self._lanes[config.lane] = lane
        self._recorder.expects(config.lane, lane.run_times.expected)
        self._rules[config.lane] = LaneRules(
            config.max_batch_size,
            config.max_delay_ns,
            lane.signature.batches,
            config.preferred_batch_sizes,
            lane.run_times.expected_ns,
        )
        self.send(
            LaneLoaded(
                lane=config.lane,
                signature=wire_signature(lane),
                load_seconds=warm.load_seconds,
                warmup_seconds=warm.warmup_seconds,
            )
        )

    def _reserve_answers(self, lane: LoadedLane) -> None:
        """Have memory for the answer of a full batch before the first request, where its size is known."""
        layout = lane.layout(lane.config.max_batch_size)
        if layout is None:
            return
        try:
            self._responses.reserve(lane.config.lane, layout.size_bytes)
        except NoResponseMemoryError as error:
            # A worker that comes back while memory is short must not take its models down with it.
            said = "no memory yet for a full batch of model %s: %s"
            _log.warning(said, lane.config.model, error, extra=lane.config.identity)

    def _serve_tickets(self) -> None:
        following = select.poll()
        following.register(self._token.baton_fd, select.POLLIN)
        following.register(self._wake_fd, select.POLLIN)
        awake = False
        while self._keep_house():
            while self._idle_lanes:
                self._tidy(self._idle_lanes.popleft())
            if not self._token.try_acquire():
                self._follow(following)
                continue
            batch = self._intake.next_batch(self._rules, self._shares, self._may_lead_on, awake=awake)
            self._token.release()
            if batch is not None:
                lane = self._lanes[batch.first.lane]
                started_ns = time.monotonic_ns()
                compute_ns = self._runner.run(lane, batch)
                ended_ns = time.monotonic_ns()
                lane.run_times.ran(batch.rows, ended_ns - started_ns, ended_ns)
                self._shares.charge(lane.config.lane, compute_ns)
                self._learn(lane, batch.rows, compute_ns)
                if lane.memory is not None:
                    lane.memory.ran(batch.size_bytes)
                awake = lane.config.spin and self._next_is_near(batch)
        self._token.resign()
        # To the end of the process: it must not hang there either.
        self._claims.busy()
        for lane in self._lanes.values():
            self._close(lane)

    def _next_is_near(self, batch: Batch) -> bool:
        """Whether it pays to wait awake: for one caller, or so many that half a batch is there at once.

        Between those, callers need the CPU more.
        """
        return len(batch.tickets) == 1 or 2 * batch.rows >= self._rules[batch.first.lane].full

    def _close(self, lane: LoadedLane) -> None:
        self._memory.pins.drop_engine(lane.loaded)
        lane.engine.close()

    def _may_lead_on(self) -> bool:
        """Keep house. False when the leader's token shall be given up."""
        return self._keep_house() and not self._idle_lanes

    def _tidy(self, number: int) -> None:
        """Have the engine of an idle lane give memory back, while others lead."""
        lane = self._lanes.get(number)
        if lane is not None:
            self._claims.busy()
            run_made_up(lane)
            self._claims.done()

    def _learn(self, lane: LoadedLane, rows: int, compute_ns: int) -> None:
        """Have the next batch of a lane as large as suits it."""
        if lane.efficiency is None or rows == 0:
            return
        number = lane.config.lane
        limit = lane.efficiency.ran(rows, compute_ns)
        if (rules := self._rules[number]).max_batch_size != limit:
            self._rules[number] = dataclasses.replace(rules, max_batch_size=limit)

    def _follow(self, following: select.poll) -> None:
        """Wait until the token may be free. Losing the race for a baton costs one poll at most."""
        for fd, _ in following.poll(FOLLOWER_POLL_MS):
            if fd == self._wake_fd:
                os.eventfd_read(fd)

    def _keep_house(self) -> bool:
        """Between batches: forget dead front ends, take lanes in and drop them. False when the worker shall stop."""
        self._claims.turn()
        while self._gone_frontends:
            frontend = self._gone_frontends.popleft()
            self._memory.detach(frontend)
            self._responses.forget_frontend(frontend)
        while self._loader.loaded:
            # Memory for answers is waited for.
            self._claims.busy()
            self._take_in(self._loader.loaded.popleft())
            self._claims.done()
        while self._removed:
            number = self._removed.popleft()
            self._rules.pop(number, None)
            self._recorder.expects(number, None)
            self._shares.forget(number)
            self._responses.forget_lane(number)
            removed = self._lanes.pop(number, None)
            if removed is not None:
                self._claims.busy()
                self._close(removed)
                self._claims.done()
        if self._look_back:
            self._look_back = False
            self._responses.give_back()
            self._idle_lanes += ask_engines(self._lanes, time.monotonic_ns())
        return not self._stop

    # Control thread -------------------------------------------------------------------------------------------

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        """Send to the supervisor, from either thread."""
        with self._send_lock:
            self._channel.send(message, fds or ())

    def listen(self) -> None:
        """Serve the control channel until the supervisor is gone, which ends the process."""
        try:
            while True:
                message, fds = self._channel.receive()
                self._handle(message, fds)
        except ChannelClosedError:
            os._exit(0)
        except BaseException:  # noqa: BLE001 - without this thread the worker must not go on
            _log.exception("the control channel failed")
            os._exit(1)

    def _handle(self, message: AnyMessage, fds: list[int]) -> None:  # noqa: C901, PLR0912 - one case a message
        match message:
            case AddLanes(lanes=lanes):
                self._loader.add(lanes)
            case RemoveLane(lane=number):
                self._loader.give_up([number])
                self._removed.append(number)
                self._wake()
            case AttachFrontend(seq=seq, frontend=frontend):
                self._memory.attach(frontend, fds[0])
                self.send(Ack(seq=seq))
            case SegmentAdded(seq=seq, owner=owner, segment=segment, block_bytes=block_bytes, blocks=blocks):
                self._memory.add_segment(owner, segment, fds[0], block_bytes, blocks)
                self.send(Ack(seq=seq))
            case SegmentRetired(seq=seq, owner=owner, segment=segment):
                self._memory.remove_segment(owner, segment)
                self.send(Ack(seq=seq))
            case DetachFrontend(frontend=frontend):
                self._gone_frontends.append(frontend)
                self._wake()
            case Growth(granted=granted, reason=reason):
                self._responses.granted(None if granted else reason)
            case SegmentUsable(segment=segment):
                self._responses.usable(segment)
            case LogLevel(level=level):
                set_level(level)
            case Collect(seq=seq):
                report_left_out()
                delta = self._recorder.take()
                self.send(
                    WorkerCounts(
                        seq=seq,
                        delta=delta,
                        arena_bytes=self._responses.total_bytes,
                        gpus=self._gpus.samples(),
                    )
                )
            case Ping():
                self.send(Pong())
                # A run loop that is not stuck comes round, and shows that in its claim table.
                self._look_back = True
                self._wake()
            case Serve():
                self._serve = True
                self._wake()
            case Stop():
                self._stop = True
                self._loader.stop()
                self._wake()
            case _:
                raise TypeError(f"a worker got {type(message).__name__}. This is a bug.")

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)


def main() -> None:
    """Run a worker."""
    inherited = begin_child(sys.argv[1:])
    channel = Channel.from_fd(inherited.control_fd)
    channel.send(Hello(pid=os.getpid(), abi=ABI_VERSION))
    try:
        init, fds = channel.receive()
    except ChannelClosedError:
        return
    if not isinstance(init, WorkerInit):
        raise TypeError(f"a worker got {type(init).__name__} first. This is a bug.")
    setproctitle(f"predictd: worker {init.pool_name} {init.index}")
    configure_child(inherited.log_fd, init.log_level)
    worker = Worker(channel, init, fds)
    threading.Thread(target=worker.listen, name="control", daemon=True).start()
    try:
        worker.main()
    except DeviceLostError as error:
        # At once and without a word more to the device. What was claimed is run by another worker.
        _log.error("the device is lost to this process: %s", error)
        os._exit(1)


if __name__ == "__main__":
    main()
