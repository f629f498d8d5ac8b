"""What a worker has claimed to run at once."""

from __future__ import annotations

from typing import NamedTuple

from predictd.server.transport.records import Records, Ticket, agree


class Batch(NamedTuple):
    """Claimed tickets of one lane and one shape.

    Attributes:
        tickets: In order.
        first: Of them.
        uniform: They have equal rows and bytes.
        together: They are uniform and lie in one slab, so they are of one front end.
        rows: Of all together.
    """

    tickets: Records
    first: Ticket
    uniform: bool
    together: bool
    rows: int

    @property
    def size_bytes(self) -> int:
        """Of the requests' blocks that are in use."""
        if self.uniform:
            return len(self.tickets) * self.first.size_bytes
        return int(self.tickets["bytes"].sum())


def batch_of(tickets: Records, *, uniform: bool) -> Batch:
    """A batch of tickets, which must not be empty."""
    first = Ticket.unpack(tickets[0].tobytes())
    if uniform:
        return Batch(tickets, first, True, agree(tickets, 0, 1), len(tickets) * first.rows)
    return Batch(tickets, first, False, False, int(tickets["rows"].sum()))


def lone_batch(tickets: Records, ticket: Ticket) -> Batch:
    """A batch of one ticket, which was read already."""
    return Batch(tickets, ticket, True, True, ticket.rows)
