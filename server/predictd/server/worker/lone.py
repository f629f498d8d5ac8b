"""The rules of planning.py for the most frequent window of all: one ticket, which runs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictd.server.transport.records import NO_DEADLINE_NS, TicketFlag

if TYPE_CHECKING:
    from predictd.server.transport.records import Ticket
    from predictd.server.worker.planning import LaneRules

_PROBE = int(TicketFlag.PROBE)
_ALONE = int(TicketFlag.ALONE)


def runs_now(ticket: Ticket, lane: LaneRules | None, now_ns: int) -> bool:
    """Whether a ticket that nobody has cancelled is a batch by itself.

    Where this says no, `plan_batch` may still say yes: a ticket that could linger is left to it.

    Args:
        ticket: The only one in hand.
        lane: Of the ticket, None if it is not served here.
        now_ns: CLOCK_MONOTONIC.
    """
    if lane is None or ticket.flags & _PROBE:
        return False
    hurried = ticket.deadline_ns != NO_DEADLINE_NS
    if hurried and ticket.deadline_ns <= now_ns + lane.expected_ns(ticket.rows, now_ns):
        return False
    lingers = lane.max_delay_ns and lane.batches and not ticket.flags & _ALONE
    return not lingers or ticket.rows >= lane.full
