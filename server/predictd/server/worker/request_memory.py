"""What front ends wrote, mapped read-only: their request segments, and where to answer them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from predictd.server.transport.blocks import CANCELLED_OFFSET
from predictd.server.transport.memory import map_shared
from predictd.server.transport.records import Records, Ticket, TicketFlag, agree, words
from predictd.server.worker.pinning import Pins


@dataclass(frozen=True, slots=True)
class RequestSegment:
    """One slab of a front end, read-only.

    Attributes:
        slab: Its bytes as (blocks, block_bytes).
        cancelled: The cancelled mark of each block.
    """

    slab: npt.NDArray[np.uint8]
    cancelled: npt.NDArray[np.bool_]
    view: memoryview
    block_bytes: int

    def block(self, index: int) -> memoryview:
        """The bytes of one block."""
        return self.view[index * self.block_bytes : (index + 1) * self.block_bytes]


class ForgedTicketError(Exception):
    """A ticket names memory that its front end does not have: the front end is broken."""


class FrontendMemory:
    """All segments of the living front ends.

    The control thread adds and removes; the run loop reads, and removes those of the dead.
    """

    def __init__(self) -> None:
        self._segments: dict[tuple[int, int], RequestSegment] = {}
        self.completion_fds: dict[int, int] = {}
        self.pins = Pins()

    def attach(self, frontend: int, completion_fd: int) -> None:
        """Know a front end."""
        self.completion_fds[frontend] = completion_fd

    def add_segment(self, frontend: int, segment: int, fd: int, block_bytes: int, blocks: int) -> None:
        """Map a segment; consumes the descriptor."""
        try:
            mapping = map_shared(fd, block_bytes * blocks)
        finally:
            os.close(fd)
        view = memoryview(mapping)
        slab = np.frombuffer(mapping, np.uint8).reshape(blocks, block_bytes)
        self._segments[frontend, segment] = RequestSegment(
            slab, slab[:, CANCELLED_OFFSET].view(bool), view, block_bytes
        )
        self.pins.add_segment((frontend, segment), slab)

    def remove_segment(self, frontend: int, segment: int) -> None:
        """Unmap what its front end has given back. No ticket names it: all its blocks are free."""
        self.pins.drop_segment((frontend, segment))
        self._segments.pop((frontend, segment), None)

    def detach(self, frontend: int) -> None:
        """Forget a dead front end. Its memory is unmapped when the last view of it is dropped."""
        self.pins.drop_frontend(frontend)
        for key in [key for key in list(self._segments) if key[0] == frontend]:
            self._segments.pop(key, None)
        completion_fd = self.completion_fds.pop(frontend, None)
        if completion_fd is not None:
            os.close(completion_fd)

    def segment(self, frontend: int, segment: int) -> RequestSegment:
        """One segment. Tickets of segments that are not mapped are dropped before they are planned."""
        return self._segments[frontend, segment]

    def slab(self, slab: int) -> npt.NDArray[np.uint8]:
        """The bytes of the slab that the first word of a ticket names."""
        return self._segments[slab & 0xFFFFFFFF, slab >> 32].slab

    def cancelled(self, window: Records) -> npt.NDArray[np.bool_]:
        """For each ticket, whether its client gave up or its front end is dead.

        Raises:
            ForgedTicketError: Some of them are `forged`.
        """
        slabs = words(window)[:, 0]
        if agree(window, 0, 1):
            return self._marks(int(slabs[0]), window)
        result = np.zeros(len(window), bool)
        for slab in np.unique(slabs):
            at = slabs == slab
            result[at] = self._marks(int(slab), window[at])
        return result

    def is_wanted(self, ticket: Ticket) -> bool:
        """Whether the memory of a ticket is there, and its client waits. If not, `cancelled` tells more."""
        segment = self._segments.get((ticket.frontend, ticket.segment))
        if segment is None or ticket.block >= len(segment.cancelled):
            return False
        return not segment.view[ticket.block * segment.block_bytes + CANCELLED_OFFSET]

    def _marks(self, slab: int, tickets: Records) -> npt.NDArray[np.bool_]:
        """The marks of tickets in one slab: `slab` is the first word of their tickets."""
        key = (slab & 0xFFFFFFFF, slab >> 32)
        segment = self._segments.get(key)
        if segment is not None:
            try:
                marks: npt.NDArray[np.bool_] = segment.cancelled[tickets["block"]]
            except IndexError:
                raise ForgedTicketError from None
            return marks
        if key[0] not in self.completion_fds:
            return np.ones(len(tickets), bool)
        if not _is_probe(tickets).all():
            raise ForgedTicketError
        return np.zeros(len(tickets), bool)

    def forged(self, window: Records) -> npt.NDArray[np.bool_]:
        """For each ticket, whether it names memory that its front end, which lives, does not have."""
        result = np.zeros(len(window), bool)
        slabs = words(window)[:, 0]
        for slab in np.unique(slabs):
            frontend, number = int(slab) & 0xFFFFFFFF, int(slab) >> 32
            if frontend not in self.completion_fds:
                continue
            at = slabs == slab
            segment = self._segments.get((frontend, number))
            if segment is None:
                result[at] = ~_is_probe(window[at])
            else:
                result[at] = window["block"][at] >= len(segment.slab)
        return result


def _is_probe(tickets: Records) -> npt.NDArray[np.bool_]:
    """A probe has no block, and names no segment."""
    return np.asarray((tickets["flags"] & int(TicketFlag.PROBE)) != 0)
