"""Tensors from request blocks into engine inputs, with as few copies as there can be.

A batch of one ticket is a view of the block itself. Tickets of one shape are gathered with one indexed copy a segment
while their tensors are small, and with one plain copy each when they are large or differ in rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import DType
from predictd.server.transport.blocks import Placed, RequestLayout, read_request
from predictd.server.transport.records import Records, Ticket, TicketFlag, words
from predictd.server.worker.batch import Batch
from predictd.server.worker.request_memory import FrontendMemory, RequestSegment
from predictd.server.worker.strings import decode_strings

Array = npt.NDArray[Any]

# Above this an indexed copy, which goes through a temporary array, costs more than a loop of plain copies.
INDEXED_COPY_LIMIT_BYTES = 16 * 1024
_LAYOUTS_KEPT = 4096
_VARYING = int(TicketFlag.VARYING)
_TOO_SMALL = "a ticket names more bytes than its block has"


class Gatherer:
    """Builds the inputs of a batch. Keeps the layout of each shape it has met."""

    def __init__(self, memory: FrontendMemory) -> None:
        self._memory = memory
        self._layouts: dict[tuple[int, int, int, int], RequestLayout] = {}

    def inputs(self, batch: Batch) -> list[Array | None]:
        """One array for each input, in engine order; None for an optional one that is absent.

        Raises:
            ValueError: A block does not hold what its ticket says.
        """
        if len(batch.tickets) == 1:
            return self._lone(batch.first)
        if not batch.uniform or batch.first.flags & _VARYING:
            return self._one_by_one(batch.tickets)
        return self._uniform(batch)

    def _lone(self, ticket: Ticket) -> list[Array | None]:
        segment = self._memory.segment(ticket.frontend, ticket.segment)
        layout = self._layout(ticket, segment)
        start = ticket.block * segment.block_bytes
        return [_view(segment.view, start, placed) for placed in layout.inputs]

    def _uniform(self, batch: Batch) -> list[Array | None]:
        """All tickets have the same rows: the layout of the first is that of all."""
        first, tickets = batch.first, batch.tickets
        segment = self._memory.segment(first.frontend, first.segment)
        layout = self._layout(first, segment)
        count = len(tickets)
        result: list[Array | None] = []
        for placed in layout.inputs:
            if not placed.present:
                result.append(None)
                continue
            if batch.together and placed.nbytes <= INDEXED_COPY_LIMIT_BYTES:
                data = segment.slab[:, placed.offset : placed.offset + placed.nbytes][tickets["block"]]
            else:
                data = np.empty((count, placed.nbytes), np.uint8)
                self._copy_by_slab(data, tickets, placed)
            array = data.reshape(-1).view(placed.dtype.numpy)
            result.append(array.reshape(count * placed.shape[0], *placed.shape[1:]))
        return result

    def _copy_by_slab(self, data: npt.NDArray[np.uint8], tickets: Records, placed: Placed) -> None:
        """Copy an input of each ticket into its row of `data`."""
        start, end = placed.offset, placed.offset + placed.nbytes
        names = words(tickets)[:, 0]
        for name in np.unique(names):
            slab = self._memory.slab(int(name))
            if end > slab.shape[1]:
                raise ValueError(_TOO_SMALL)
            _copy_rows(data, np.flatnonzero(names == name), slab, tickets["block"], start, end)

    def _one_by_one(self, batch: Records) -> list[Array | None]:
        """Tickets differ in rows or carry strings: each is read by its own layout."""
        parts = [self._lone(Ticket.unpack(ticket.tobytes())) for ticket in batch]
        return [_concatenate(column) for column in zip(*parts, strict=True)]

    def _layout(self, ticket: Ticket, segment: RequestSegment) -> RequestLayout:
        if ticket.flags & _VARYING:
            return read_request(segment.block(ticket.block))
        if ticket.size_bytes > segment.block_bytes:
            raise ValueError(_TOO_SMALL)
        key = (ticket.lane, ticket.shape_key, ticket.rows, ticket.size_bytes)
        layout = self._layouts.get(key)
        if layout is None:
            layout = read_request(segment.block(ticket.block))
            if layout.size_bytes != key[3] or layout.rows != key[2]:
                raise ValueError("a request block does not hold what its ticket says")
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            self._layouts[key] = layout
        return layout


def _view(memory: memoryview, start: int, placed: Placed) -> Array | None:
    """The tensor of the block that starts there, where it lies; strings are decoded into objects."""
    if not placed.present:
        return None
    at = start + placed.offset
    if placed.dtype is DType.BYTES:
        data = memory[at : at + placed.nbytes]
        return decode_strings(data, math.prod(placed.shape)).reshape(placed.shape)
    return np.ndarray(placed.shape, placed.dtype.numpy, memory, at)


def _copy_rows(
    data: npt.NDArray[np.uint8],
    positions: npt.NDArray[np.intp],
    slab: npt.NDArray[np.uint8],
    blocks: npt.NDArray[np.uint32],
    start: int,
    end: int,
) -> None:
    """Copy blocks[positions] of one slab into the rows `positions` of data."""
    if end - start <= INDEXED_COPY_LIMIT_BYTES:
        data[positions] = slab[:, start:end][blocks[positions]]
        return
    for position in positions:
        data[position] = slab[blocks[position], start:end]


def _concatenate(column: Sequence[Array | None]) -> Array | None:
    present = [part for part in column if part is not None]
    if not present:
        return None
    if len(present) != len(column):
        raise ValueError("requests with and without an optional input share a batch. This is a bug.")
    return np.concatenate(present)
