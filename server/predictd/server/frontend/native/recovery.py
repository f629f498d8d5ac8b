"""Requests that the loop in C began and that come to no plain end there: what is left to do for each.

Their tickets came back with a failure, or died with a worker, or found no room. The loop hands such a request over with
its whole message; here it is treated as one of Python's own from that point on, by the same functions, and its answer
or its status goes back to the loop, which knows the client.
"""

from __future__ import annotations

import asyncio
import enum
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.server.frontend.apis import oip, oip_inference, predictd_v1
from predictd.server.frontend.apis.rpc import fitting, parse
from predictd.server.frontend.calls import Answered, Call
from predictd.server.frontend.failures import LaneGoneError, expected_too_late
from predictd.server.frontend.handed import Handed, PutBackError
from predictd.server.frontend.native import metadata
from predictd.server.frontend.native.packing import Command, numbers, text
from predictd.server.frontend.outcomes import outcome
from predictd.server.frontend.pools import WorkerLink, release_blocks
from predictd.server.transport.allocator import Block
from predictd.server.transport.records import COMPLETION_STRUCT, NO_DEADLINE_NS, NO_SEGMENT

if TYPE_CHECKING:
    from predictd.server.frontend.inference import InferRequest, InferResponse
    from predictd.server.frontend.routing import Lane
    from predictd.server.frontend.service import Service
    from predictd.server.frontend.status import Failure

_HEAD = struct.Struct("<IIIBB2xQQQQ")
_COMPLETION = struct.Struct(COMPLETION_STRUCT)
_SIZE = struct.Struct("<Q")
_CLIENT_GONE = struct.Struct("<II")
_NOWHERE = Block(NO_SEGMENT, 0, 0)


class Method(enum.IntEnum):
    """`enum pn_method`."""

    PREDICT = 1
    PREDICT_STREAM = 2
    MODEL_INFER = 3
    MODEL_STREAM_INFER = 4


class Reason(enum.IntEnum):
    """`enum handed_reason`."""

    COMPLETED = 0
    FULL = 1
    LATE = 2
    PUT_BACK = 3
    ALONE = 4
    POOL_GONE = 5


class _Protocol(NamedTuple):
    """How the requests of a method are read, and answered.

    Attributes:
        api: The protocol's name.
        decode: From a message to a request.
        encode: From an answer and the request's id to a message.
        encode_error: From a failure and the request's message to a message; None where it is the call's status.
    """

    api: str
    decode: Callable[[bytes], InferRequest]
    encode: Callable[[InferResponse, str], bytes]
    encode_error: Callable[[Failure, bytes], bytes] | None


def _predict_error(failure: Failure, message: bytes) -> bytes:
    return predictd_v1.encode_error(failure, predictd_v1.decode(message).id)


def _infer_error(failure: Failure, message: bytes) -> bytes:
    return oip_inference.encode_error(failure, parse(oip_pb.ModelInferRequest, message))


_PROTOCOLS: Mapping[Method, _Protocol] = {
    Method.PREDICT: _Protocol(predictd_v1.API, predictd_v1.decode, predictd_v1.encode, None),
    Method.PREDICT_STREAM: _Protocol(
        predictd_v1.API, predictd_v1.decode, predictd_v1.encode_streamed, _predict_error
    ),
    Method.MODEL_INFER: _Protocol(oip.API, oip_inference.decode, oip_inference.encode, None),
    Method.MODEL_STREAM_INFER: _Protocol(
        oip.API, oip_inference.decode, oip_inference.encode_streamed, _infer_error
    ),
}
# Both protocols have the same.
_STATUSES = predictd_v1.STATUSES


@dataclass(frozen=True, slots=True)
class HandedEvent:
    """A request that is handed over.

    Attributes:
        slot: By which the loop knows it, with its generation.
        generation: The same.
        lane: That it was for.
        method: By which it came.
        reason: Why it is handed over.
        accepted_ns: When it came.
        deadline_ns: Its own, 0 for none.
        excess_ns: If no answer is expected in time: by how much it would be late.
        left_ns: And how long there was.
        record: Its completion, if that is the reason.
        about: What is told of its call, where the log needs it.
        message: As it came.
    """

    slot: int
    generation: int
    lane: int
    method: Method
    reason: Reason
    accepted_ns: int
    deadline_ns: int
    excess_ns: int
    left_ns: int
    record: tuple[int, ...]
    about: bytes
    message: bytes

    @classmethod
    def parse(cls, data: bytes) -> HandedEvent:
        """`struct handed_event` and the message behind it."""
        slot, generation, lane, method, reason, accepted_ns, deadline_ns, excess_ns, left_ns = (
            _HEAD.unpack_from(data)
        )
        (about_bytes,) = _SIZE.unpack_from(data, _HEAD.size + _COMPLETION.size)
        begin = _HEAD.size + _COMPLETION.size + _SIZE.size
        return cls(
            slot,
            generation,
            lane,
            Method(method),
            Reason(reason),
            accepted_ns,
            deadline_ns,
            excess_ns,
            left_ns,
            _COMPLETION.unpack_from(data, _HEAD.size),
            data[begin : begin + about_bytes],
            data[begin + about_bytes :],
        )


class Recovery:
    """Brings requests to an end that were handed over. Runs on the event loop.

    Args:
        command: To the loop in C.
        service: Answers.
        lanes: Those that the loop knows, by id.
        workers: Those that live, by id.
        frontend: Our id.
        max_message_bytes: Of an answer.

    Attributes:
        note: Told what is known of a request's call before it is served, in the context of that.
    """

    def __init__(
        self,
        command: Command,
        service: Service,
        lanes: Mapping[int, Lane],
        workers: Mapping[int, WorkerLink],
        frontend: int,
        max_message_bytes: int,
    ) -> None:
        self._command = command
        self._service = service
        self._lanes = lanes
        self._workers = workers
        self._frontend = frontend
        self._max_message_bytes = max_message_bytes
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}
        self.note: Callable[[bytes], None] | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def on_handed(self, data: bytes) -> None:
        """A request is handed over."""
        event = HandedEvent.parse(data)
        key = (event.slot, event.generation)
        task = asyncio.get_running_loop().create_task(self._serve(event))
        self._tasks[key] = task
        task.add_done_callback(lambda task: self._ended(key, task))

    def on_client_gone(self, data: bytes) -> None:
        """Nobody waits for a request any more."""
        task = self._tasks.get(_CLIENT_GONE.unpack(data))
        if task is not None:
            task.cancel()

    def _ended(self, key: tuple[int, int], task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if task.cancelled():
            self._command("end", numbers(*key))
        else:
            task.result()

    async def _serve(self, event: HandedEvent) -> None:
        key = numbers(event.slot, event.generation)
        protocol = _PROTOCOLS[event.method]
        if self.note is not None:
            self.note(event.about)
        try:
            message = await self._answer(event, protocol)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status
            failure = _STATUSES.failure(error)
        else:
            self._command("answer", key + message)
            return
        if protocol.encode_error is not None:
            self._command("answer", key + protocol.encode_error(failure, event.message))
            return
        code, _ = failure.code.value
        trailers = metadata.pack(failure.trailers)
        self._command("fail", key + numbers(code) + text(failure.message) + trailers)

    async def _answer(self, event: HandedEvent, protocol: _Protocol) -> bytes:
        lane = self._lanes[event.lane]
        request = protocol.decode(event.message)
        # A call, and no error in an object: a failure knows the frames that know its request.
        handed = Handed(
            lane, request, event.deadline_ns, event.accepted_ns, partial(self._outcome, event, lane, request)
        )
        response = await self._service.resume(handed, protocol.api)
        return fitting(protocol.encode(response, request.id), self._max_message_bytes)

    def _outcome(self, event: HandedEvent, lane: Lane, request: InferRequest) -> Answered | None:
        """What came of a request so far, None for nothing. Gives back what its completion names."""
        match event.reason:
            case Reason.COMPLETED:
                try:
                    return outcome(
                        _call(event, lane, request), event.record, self._workers.get(event.record[4])
                    )
                finally:
                    self._release(event)
            case Reason.FULL:
                return None
            case Reason.LATE:
                raise expected_too_late(lane, event.left_ns, event.excess_ns)
            case Reason.POOL_GONE:
                raise LaneGoneError(f"model '{lane.model}' stopped to be served")
            case Reason.PUT_BACK | Reason.ALONE:
                raise PutBackError(int(event.reason is Reason.ALONE))

    def _release(self, event: HandedEvent) -> None:
        """What the completion names is given back."""
        worker, segment, block = event.record[4:7]
        if segment != NO_SEGMENT:
            release_blocks(self._workers, self._frontend, {(worker, segment, block): 1})


def _call(event: HandedEvent, lane: Lane, request: InferRequest) -> Call:
    """The request as the dispatcher would have it."""
    wanted = [lane.output_names.index(name) for name in request.outputs]
    deadline_ns = event.deadline_ns or NO_DEADLINE_NS
    return Call(
        slot=event.slot,
        generation=event.generation,
        lane=lane,
        block=_NOWHERE,
        wanted=tuple(wanted) or tuple(range(len(lane.output_names))),
        future=None,
        rows=lane.inputs.admit(request.inputs).layout.rows,
        shape_key=0,
        flags=0,
        size_bytes=0,
        priority=lane.queues.of(0).level,
        enqueued_ns=event.accepted_ns,
        deadline_ns=deadline_ns,
        answer_by_ns=deadline_ns,
    )
