"""Tells the loop in C which lanes it may answer for, and what requests look like that were checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.native.packing import Command, longs, numbers, text
from predictd.server.transport.records import TicketFlag

if TYPE_CHECKING:
    from predictd.server.frontend.admission import Admission
    from predictd.server.frontend.inference import InputTensor
    from predictd.server.frontend.pools import PoolLink
    from predictd.server.frontend.routing import Lane

# As the C half has them: PB_INPUTS_MAX, PB_OUTPUTS_MAX, PB_RANK_MAX, ADMISSIONS_MAX, LANE_… .
INPUTS_MAX = 16
OUTPUTS_MAX = 16
RANK_MAX = 8
SHAPES_MAX = 4096
_BATCHES = 1
_NEEDS_DEADLINE = 2


def is_plain(lane: Lane, pool: PoolLink) -> bool:
    """Whether nothing about the requests of a lane needs judgement, as far as they name no rule of their own."""
    rules = lane.queues.of(0).rules
    return (
        0 < len(lane.output_names) <= OUTPUTS_MAX
        and not pool.queues.counted
        and rules.max_queue_size >= pool.queues.limit
        and not (rules.max_queue_bytes or rules.timeout_ns or rules.delay)
    )


def encode_lane(lane: Lane, pool: PoolLink, expected: int) -> bytes:
    """The arguments of `lane_add`; `expected` is the address of a `struct expected`."""
    flags = (_BATCHES if lane.signature.batches else 0) | (
        _NEEDS_DEADLINE if lane.config.default_deadline_ns else 0
    )
    level = min(lane.queues.of(0).level, pool.queues.levels)
    return b"".join(
        (
            numbers(lane.id, lane.pool, flags, level),
            longs(lane.version, lane.answer_limit.limit.size_bytes, expected),
            text(lane.model),
            text(str(lane.version)),
            numbers(len(lane.output_names)),
            *map(text, lane.output_names),
        )
    )


class Admissions:
    """The shapes of one lane that the loop knows. Called by the lane's `LaneInputs` with each that is new."""

    def __init__(self, command: Command, lane: Lane) -> None:
        self._command = command
        self._lane = lane
        self._count = 0

    def learned(self, tensors: Sequence[InputTensor], admission: Admission) -> None:
        """A request was checked of a shape that was not known."""
        if not self._is_plain(tensors, admission):
            return
        if self._count >= SHAPES_MAX:
            self._command("admissions_clear", numbers(self._lane.id))
            self._count = 0
        self._count += 1
        self._command("admission_add", _encode(self._lane.id, tensors, admission))

    def _is_plain(self, tensors: Sequence[InputTensor], admission: Admission) -> bool:
        """Whether the loop can take such requests, and all their answers are within the limit, as far as is known."""
        try:
            self._lane.answer_limit.expect(range(len(self._lane.output_names)), admission.layout.rows)
        except InvalidRequestError:
            return False
        return (
            not admission.flags & TicketFlag.VARYING
            and 0 < len(tensors) <= INPUTS_MAX
            and all(len(tensor.data) and len(tensor.shape) <= RANK_MAX for tensor in tensors)
            and admission.layout.size_bytes < 1 << 32
        )


def _encode(lane: int, tensors: Sequence[InputTensor], admission: Admission) -> bytes:
    """The arguments of `admission_add`: inputs in the order of the request."""
    layout = admission.layout
    placed = {at: one for at, one in zip(admission.order, layout.inputs, strict=True) if at >= 0}
    parts = [
        numbers(lane, layout.rows, admission.flags),
        longs(admission.shape_key, layout.size_bytes),
        text(layout.head),
        numbers(len(tensors)),
    ]
    for at, tensor in enumerate(tensors):
        one = placed[at]
        parts += (
            text(tensor.name),
            numbers(tensor.dtype, len(tensor.shape)),
            longs(*tensor.shape, one.offset, one.nbytes),
        )
    return b"".join(parts)
