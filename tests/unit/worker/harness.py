"""A worker without a process: its real parts on real pipes and arenas, and front ends that speak to them."""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from predictd.engines.api import DType
from predictd.server.control.memory import GrowthRequest, SegmentAdded
from predictd.server.control.message import Message
from predictd.server.frontend.answers import WorkerMemory
from predictd.server.observe.recorder import WorkerRecorder
from predictd.server.transport.allocator import Block, SegmentShape, size_class
from predictd.server.transport.arena import Arena
from predictd.server.transport.blocks import (
    CANCELLED_OFFSET,
    Output,
    RequestLayout,
    lay_out_request,
    read_error,
    read_response,
)
from predictd.server.transport.claims import ClaimState, ClaimWriter, read_claims
from predictd.server.transport.pipes import Pipe, depth, make_pipe
from predictd.server.transport.records import (
    COMPLETION,
    NO_DEADLINE_NS,
    NO_SEGMENT,
    RECORD_BYTES,
    RELEASE_STRUCT,
    TICKET_STRUCT,
    Records,
    Status,
    TicketFlag,
)
from predictd.server.worker.batch import Batch
from predictd.server.worker.intake import Intake
from predictd.server.worker.planning import LaneRules, Shares
from predictd.server.worker.request_memory import FrontendMemory
from predictd.server.worker.response_memory import ResponseMemory
from predictd.server.worker.runner import LoadedLane, Runner
from predictd.server.worker.strings import decode_strings, encode_strings
from tests.unit.worker.lanes import Array

WORKER = 77
POOL = 5
PRIORITIES = 3
LIMIT_BYTES = 64 * 2**20
KEEP_NS = 60 * 10**9

_TICKET = struct.Struct(TICKET_STRUCT)
_RELEASE = struct.Struct(RELEASE_STRUCT)


@dataclass(eq=False)
class Sent:
    """A request on its way."""

    slot: int
    generation: int
    block: Block
    layout: RequestLayout
    ticket: bytes | bytearray


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back for one request."""

    slot: int
    generation: int
    status: Status
    outputs: list[Array]
    error: str
    completion: Any


def wire(array: Array) -> tuple[DType, bytes]:
    """Dtype and bytes of an input; objects are strings."""
    if array.dtype == object:
        return DType.BYTES, encode_strings(array.reshape(-1))[0]
    return next(dtype for dtype in DType if dtype.numpy == array.dtype), array.tobytes()


@dataclass
class FakeFrontend:
    """Writes requests, sends tickets, reads completions and releases, as docs/transport.md says."""

    id: int
    worker: FakeWorker
    pipe: Pipe
    arena: Arena = field(default_factory=lambda: Arena("predictd-test", LIMIT_BYTES, KEEP_NS))
    sent: dict[tuple[int, int], Sent] = field(default_factory=dict)
    generation: int = 100

    def block(self, size_bytes: int, *, new_segment: bool = False) -> Block:
        """A block; `new_segment` takes it from a segment of its own."""
        block = None if new_segment else self.arena.allocate(size_bytes)
        if block is None:
            shape = SegmentShape(size_class(size_bytes), 1 if new_segment else 64)
            number, fd = self.arena.create_segment(shape)
            self.worker.memory.add_segment(self.id, number, fd, shape.block_bytes, shape.blocks)
            self.arena.open_segment(number)
            block = self.arena.allocate(size_bytes)
        assert block is not None
        return block

    def request(
        self,
        lane: LoadedLane,
        *inputs: Array | None,
        flags: int = 0,
        priority: int = 2,
        deadline_ns: int = NO_DEADLINE_NS,
        enqueued_ns: int | None = None,
        lane_id: int | None = None,
        shape_key: int | None = None,
        new_segment: bool = False,
    ) -> Sent:
        """Write a request into the arena and make its ticket."""
        encoded = [None if one is None else wire(one) for one in inputs]
        varying = any(one is not None and one[0] is DType.BYTES for one in encoded)
        first = next((one for one in inputs if one is not None), None)
        rows = first.shape[0] if lane.signature.batches and first is not None else 1
        layout = lay_out_request(
            lane.config.lane,
            rows,
            [
                None if one is None or code is None else (code[0], one.shape, len(code[1]))
                for one, code in zip(inputs, encoded, strict=True)
            ],
        )
        block = self.block(layout.size_bytes, new_segment=new_segment)
        view = self.arena.view(block)
        view[: len(layout.head)] = layout.head
        for placed, code in zip(layout.inputs, encoded, strict=True):
            if code is not None:
                view[placed.offset : placed.offset + placed.nbytes] = code[1]
        self.generation += 1
        slot = len(self.sent)
        key = hash(tuple(None if one is None else one.shape[lane.signature.batches :] for one in inputs))
        ticket = _TICKET.pack(
            self.id,
            block.segment,
            lane.config.lane if lane_id is None else lane_id,
            rows,
            key & (2**64 - 1) if shape_key is None else shape_key,
            layout.size_bytes,
            priority,
            flags | (TicketFlag.VARYING if varying else 0),
            0,
            slot,
            self.generation,
            block.index,
            time.monotonic_ns() if enqueued_ns is None else enqueued_ns,
            deadline_ns,
        )
        self.sent[slot, self.generation] = sent = Sent(slot, self.generation, block, layout, ticket)
        return sent

    def send(self, sent: Sent, level: int = 2) -> Sent:
        """Put a ticket into a queue."""
        os.write(self.worker.queues[level - 1].write_fd, sent.ticket)
        return sent

    def ask(self, lane: LoadedLane, *inputs: Array | None, **options: Any) -> Sent:
        """Write a request and send its ticket into the queue of its priority."""
        return self.send(self.request(lane, *inputs, **options), options.get("priority", 2))

    def probe(self, number: int, level: int = 2) -> None:
        """Send a probe."""
        flags = int(TicketFlag.PROBE)
        ticket = _TICKET.pack(
            self.id,
            NO_SEGMENT,
            0,
            0,
            0,
            0,
            level,
            flags,
            0,
            number,
            0,
            0,
            time.monotonic_ns(),
            NO_DEADLINE_NS,
        )
        os.write(self.worker.queues[level - 1].write_fd, ticket)

    def cancel(self, sent: Sent) -> None:
        """The client gave up."""
        self.arena.view(sent.block)[CANCELLED_OFFSET] = 1

    def completions(self) -> Records:
        """All completions that wait."""
        waiting = self.pipe.depth()
        return np.frombuffer(
            os.read(self.pipe.read_fd, waiting * RECORD_BYTES) if waiting else b"", COMPLETION
        )

    def answers(self, *, release: bool = True) -> list[Answer]:
        """All answers that wait, in the order of their completions; blocks are given back."""
        completions = self.completions()
        answers = [self._answer(completion) for completion in completions]
        if release:
            for completion in completions:
                self.release(completion, 1)
        return answers

    def release(self, completion: Any, count: int) -> None:
        """Give answers in a block back."""
        if completion["segment"] != NO_SEGMENT:
            record = _RELEASE.pack(self.id, int(completion["segment"]), int(completion["block"]), count)
            os.write(self.worker.release.write_fd, record)

    def _answer(self, completion: Any) -> Answer:
        assert completion["worker"] == WORKER
        slot, generation = int(completion["slot"]), int(completion["generation"])
        status = Status(int(completion["status"]))
        if completion["segment"] == NO_SEGMENT:
            return Answer(slot, generation, status, [], "", completion)
        block = self.worker.answers.block(int(completion["segment"]), int(completion["block"]))
        if status is not Status.OK:
            return Answer(slot, generation, status, [], read_error(block), completion)
        layout = read_response(block)
        if self.worker.lanes[int(completion["lane"])].signature.batches:
            first_row, rows = int(completion["first_row"]), int(completion["rows"])
            outputs = [cut_rows(block, output, first_row, rows) for output in layout.outputs]
        else:
            outputs = [decode(block, one.dtype, one.shape, one.offset, one.nbytes) for one in layout.outputs]
        return Answer(slot, generation, status, outputs, "", completion)


def statuses(frontend: FakeFrontend) -> dict[int, Status]:
    """What became of the requests whose answers wait, by slot."""
    return {answer.slot: answer.status for answer in frontend.answers()}


def cut_rows(block: memoryview, output: Output, first_row: int, rows: int) -> Array:
    """Some rows of an output."""
    start, end = first_row * output.row_bytes, (first_row + rows) * output.row_bytes
    if output.row_offsets:
        table = np.frombuffer(block, "<u8", output.shape[0] + 1, output.row_offsets)
        start, end = int(table[first_row]), int(table[first_row + rows])
    return decode(block, output.dtype, (rows, *output.shape[1:]), output.offset + start, end - start)


def decode(block: memoryview, dtype: DType, shape: tuple[int, ...], offset: int, nbytes: int) -> Array:
    """A copy of a tensor."""
    data = block[offset : offset + nbytes]
    if dtype is DType.BYTES:
        return decode_strings(data, math.prod(shape)).reshape(shape)
    return np.frombuffer(bytes(data), dtype.numpy).reshape(shape)


class FakeWorker:
    """A worker's parts, and a supervisor that grants what it is asked for unless told otherwise."""

    def __init__(self, lanes: Sequence[LoadedLane], carry: Pipe, limit_bytes: int) -> None:
        self.lanes = {lane.config.lane: lane for lane in lanes}
        self.queues = [make_pipe() for _ in range(PRIORITIES)]
        self.carry = carry
        self.release = make_pipe()
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.memory = FrontendMemory()
        self.claims = ClaimWriter()
        self.recorder = WorkerRecorder()
        self.answers = WorkerMemory()
        self.refusal: str | None = None
        self.responses = ResponseMemory(
            WORKER, POOL, limit_bytes, KEEP_NS, self.release.read_fd, self._supervise
        )
        self.runner = Runner(WORKER, self.memory, self.responses, self.claims, self.recorder)
        self.intake = Intake(
            [queue.read_fd for queue in self.queues],
            (carry.read_fd, carry.write_fd),
            self.wake_fd,
            self.memory,
            self.claims,
            self.runner.drop,
        )
        self.shares = Shares()
        self.frontends: dict[int, FakeFrontend] = {}
        self.batches: list[Batch] = []

    def frontend(self, number: int = 1) -> FakeFrontend:
        """The front end of this number."""
        if number not in self.frontends:
            pipe = make_pipe()
            self.memory.attach(number, os.dup(pipe.write_fd))
            self.frontends[number] = FakeFrontend(number, self, pipe)
        return self.frontends[number]

    @property
    def rules(self) -> Mapping[int, LaneRules]:
        """Of all lanes."""
        return {
            number: LaneRules(
                lane.config.max_batch_size,
                lane.config.max_delay_ns,
                lane.signature.batches,
                lane.config.preferred_batch_sizes,
            )
            for number, lane in self.lanes.items()
        }

    @property
    def waiting(self) -> int:
        """Tickets in the queues and the carry."""
        return depth(self.carry.read_fd) + sum(queue.depth() for queue in self.queues)

    def take(self, looks: int = 3) -> Batch | None:
        """Lead once: a claimed batch, or None when nothing can run after some looks at the queues."""
        left = iter(range(looks))

        def keep_house() -> bool:
            # Never waits for tickets that nobody will send.
            os.eventfd_write(self.wake_fd, 1)
            return next(left, None) is not None

        return self.intake.next_batch(self.rules, self.shares, keep_house)

    def step(self) -> bool:
        """Lead and run once. False when there was nothing to run."""
        batch = self.take()
        if batch is None:
            return False
        state, claimed = read_claims(self.claims._map)
        assert (state, claimed) == (ClaimState.WAITING, batch.tickets.tobytes())
        self.batches.append(batch)
        lane = self.lanes[int(batch.tickets["lane"][0])]
        self.shares.charge(lane.config.lane, self.runner.run(lane, batch))
        assert read_claims(self.claims._map) == (ClaimState.IDLE, b"")
        return True

    def serve(self) -> int:
        """Lead and run until nothing waits. Returns the number of runs."""
        runs = 0
        while self.waiting:
            runs += self.step()
        return runs

    def _supervise(self, message: Message, fds: list[int]) -> None:
        match message:
            case GrowthRequest():
                self.responses.granted(self.refusal)
            case SegmentAdded(segment=segment, block_bytes=block_bytes, blocks=blocks):
                self.answers.add_segment(segment, os.dup(fds[0]), block_bytes, blocks)
                self.responses.usable(segment)
            case _:
                raise TypeError(f"a worker sent {type(message).__name__}")

    def close(self) -> None:
        """Close every descriptor."""
        for number, frontend in self.frontends.items():
            self.memory.detach(number)
            frontend.pipe.close()
        for pipe in (*self.queues, self.carry, self.release):
            pipe.close()
        os.close(self.wake_fd)
        os.close(self.claims.fd)


@contextmanager
def running(
    *lanes: LoadedLane, carry: Pipe | None = None, limit_bytes: int = LIMIT_BYTES
) -> Iterator[FakeWorker]:
    """A worker for some lanes."""
    worker = FakeWorker(lanes, carry or make_pipe(), limit_bytes)
    try:
        yield worker
    finally:
        worker.close()
