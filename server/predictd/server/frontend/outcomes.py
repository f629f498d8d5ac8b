"""What a completion stands for: an answer, or the reason why there is none."""

from __future__ import annotations

import time

from predictd.server.frontend.answers import cut
from predictd.server.frontend.calls import Answered, Call
from predictd.server.frontend.failures import failure, too_late
from predictd.server.frontend.pools import WorkerLink
from predictd.server.transport.records import NO_SEGMENT, Status


def outcome(call: Call, record: tuple[int, ...], link: WorkerLink | None) -> Answered:
    """Read an answer out of its worker's memory.

    Args:
        call: Which the completion is for.
        record: The completion, by COMPLETION_STRUCT.
        link: The worker that sent it; None when it is gone.

    Raises:
        RequestError: It is no answer.
        ValueError: It cannot be one. This is a bug, or a broken worker.
    """
    _, _, first_row, rows, _, segment, index, batch_rows, _, _, queue_ns, compute_ns, status = record
    if status == Status.OK and link is not None:
        if call.lane.signature.batches and rows != call.rows:
            raise ValueError(f"a worker answers {rows} rows where {call.rows} were asked")
        block = link.memory.block(segment, index)
        outputs = cut(call.lane, block, link.memory.layout(block), call.wanted, first_row, rows)
        return Answered(outputs, queue_ns, compute_ns, batch_rows, call.rows)
    if status == Status.EXPIRED:
        raise too_late(call, time.monotonic_ns())
    text = link.memory.error(segment, index) if link is not None and segment != NO_SEGMENT else ""
    raise failure(Status(status), call, text)
