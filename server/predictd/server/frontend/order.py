"""What is asked of the dispatcher: a request that was checked, and the call that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.admission import Admission
from predictd.server.frontend.calls import Call, Receiver
from predictd.server.frontend.inference import InferRequest, InputTensor
from predictd.server.frontend.routing import Lane
from predictd.server.frontend.waiting import LaneQueue
from predictd.server.transport.allocator import Block
from predictd.server.transport.records import NO_DEADLINE_NS, TicketFlag

_SELECTIONS_KEPT = 1024
# Plain numbers: an operation on flags takes a microsecond.
_ALONE, _DELAY, _PATIENCE = int(TicketFlag.ALONE), int(TicketFlag.DELAY), int(TicketFlag.PATIENCE)


@dataclass(slots=True)
class Order:
    """A checked request on its way to a lane's pool.

    Attributes:
        lane: Of the request.
        admission: What it looks like.
        tensors: Its inputs.
        wanted: Indices of the outputs.
        queue: Of its priority in this lane.
        deadline_ns: Its own, 0 for none.
        accepted_ns: When it came.
        patience_ns: How long it may wait in its queue, 0 as long as it takes.
        attempt: How often it was running in a worker that died, where it was sent before.
        moved: It was accepted elsewhere, so that it waits for room in the queue instead of being refused.
    """

    lane: Lane
    admission: Admission
    tensors: Sequence[InputTensor]
    wanted: tuple[int, ...]
    queue: LaneQueue
    deadline_ns: int
    accepted_ns: int
    patience_ns: int = 0
    attempt: int = 0
    moved: bool = False


def ordered(
    lane: Lane,
    request: InferRequest,
    deadline_ns: int,
    accepted_ns: int,
    attempt: int = 0,
    *,
    moved: bool = False,
) -> Order:
    """Check a request against what its lane takes. Raises RequestError."""
    admission = lane.inputs.admit(request.inputs)
    wanted = _selection(lane, request.outputs)
    lane.answer_limit.expect(wanted, admission.layout.rows)
    queue = lane.queues.of(request.priority)
    queue.asked_ns = accepted_ns
    patience_ns = queue.patience_ns(request.timeout_ns)
    return Order(
        lane,
        admission,
        request.inputs,
        wanted,
        queue,
        deadline_ns,
        accepted_ns,
        patience_ns,
        attempt,
        moved,
    )


def placed(
    order: Order, receiver: Receiver, levels: int, block: Block, place: tuple[int, int], ahead: int
) -> Call:
    """The call of a request that has a place.

    Args:
        order: The request.
        receiver: Gets its answer.
        levels: Of the pool's queues.
        block: For its tensors.
        place: Its slot and generation.
        ahead: Requests that are before it.
    """
    admission, queue, accepted_ns = order.admission, order.queue, order.accepted_ns
    deadline_ns = order.deadline_ns or NO_DEADLINE_NS
    patience_ns = order.patience_ns
    patient_until_ns = accepted_ns + patience_ns if patience_ns else NO_DEADLINE_NS
    patience = _PATIENCE if patient_until_ns < deadline_ns else 0
    delay = _DELAY if patience and queue.rules.delay else 0
    slot, generation = place
    return Call(
        slot=slot,
        generation=generation,
        lane=order.lane,
        block=block,
        wanted=order.wanted,
        future=receiver,
        rows=admission.layout.rows,
        shape_key=admission.shape_key,
        flags=admission.flags | patience | delay | (_ALONE if order.attempt else 0),
        size_bytes=admission.layout.size_bytes,
        priority=min(queue.level, levels),
        enqueued_ns=accepted_ns,
        attempt=order.attempt,
        deadline_ns=min(deadline_ns, patient_until_ns),
        answer_by_ns=deadline_ns,
        patience_ns=patience_ns,
        queue=queue,
        # One that was sent before waited for more than those that are before it now.
        expectation=None if order.moved else queue.expectation,
        ahead=ahead,
    )


def _selection(lane: Lane, names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the outputs that are asked for: all of them when none is named."""
    key = tuple(names)
    selection = lane.selections.get(key)
    if selection is None:
        selection = _select(lane, key)
        if len(lane.selections) >= _SELECTIONS_KEPT:
            lane.selections.clear()
        lane.selections[key] = selection
    return selection


def _select(lane: Lane, names: tuple[str, ...]) -> tuple[int, ...]:
    if not names:
        return tuple(range(len(lane.output_names)))
    for name in names:
        if name not in lane.output_names:
            known = ", ".join(f"'{output}'" for output in lane.output_names)
            raise InvalidRequestError(f"unknown output '{name}' of model '{lane.model}'; it gives {known}")
        if names.count(name) > 1:
            raise InvalidRequestError(f"output '{name}' of model '{lane.model}' is asked for twice")
    return tuple(lane.output_names.index(name) for name in names)
