"""Answers cut out of the response blocks of workers, by row."""

from __future__ import annotations

import os
from dataclasses import dataclass

from predictd.server.frontend.inference import OutputTensor
from predictd.server.frontend.routing import Lane
from predictd.server.transport.blocks import (
    ResponseLayout,
    read_error,
    read_response,
    response_head_bytes,
)
from predictd.server.transport.memory import map_shared

_LAYOUTS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class _Segment:
    view: memoryview
    block_bytes: int


class WorkerMemory:
    """The response segments of one worker, mapped read-only."""

    def __init__(self) -> None:
        self._segments: dict[int, _Segment] = {}
        self._layouts: dict[bytes, ResponseLayout] = {}

    def add_segment(self, segment: int, fd: int, block_bytes: int, blocks: int) -> None:
        """Map a segment; consumes the descriptor."""
        try:
            mapping = map_shared(fd, block_bytes * blocks)
        finally:
            os.close(fd)
        self._segments[segment] = _Segment(memoryview(mapping), block_bytes)

    def remove_segment(self, segment: int) -> None:
        """Unmap what its worker has given back. No completion names it: all its blocks are free."""
        self._segments.pop(segment, None)

    def segment(self, segment: int) -> memoryview:
        """The bytes of a segment."""
        return self._segments[segment].view

    def block(self, segment: int, index: int) -> memoryview:
        """The bytes of one block."""
        known = self._segments[segment]
        return known.view[index * known.block_bytes : (index + 1) * known.block_bytes]

    def layout(self, block: memoryview) -> ResponseLayout:
        """The directory of a block; batches of one shape share one."""
        head = bytes(block[: response_head_bytes(block)])
        layout = self._layouts.get(head)
        if layout is None:
            layout = read_response(block)
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            self._layouts[head] = layout
        return layout

    def error(self, segment: int, index: int) -> str:
        """The text of a failed run."""
        return read_error(self.block(segment, index))


def cut(
    lane: Lane, block: memoryview, layout: ResponseLayout, wanted: tuple[int, ...], first_row: int, rows: int
) -> list[OutputTensor]:
    """Copy the rows of one request out of a batch, for the outputs that were asked for.

    Raises:
        ValueError: There are no such rows. This is a bug, or a broken worker.
    """
    batches = lane.signature.batches
    result = []
    size_bytes = 0
    for index in wanted:
        output = layout.outputs[index]
        if not batches:
            start, end, shape = output.offset, output.offset + output.nbytes, output.shape
        else:
            if first_row + rows > output.shape[0]:
                raise ValueError("an answer reaches beyond its batch")
            shape = (rows, *output.shape[1:])
            if output.row_offsets:
                first = _offset(block, output.row_offsets, first_row)
                last = _offset(block, output.row_offsets, first_row + rows)
                if not first <= last <= output.nbytes:
                    raise ValueError("the row offsets of an output reach beyond it")
                start, end = first + output.offset, last + output.offset
            else:
                start = output.offset + first_row * output.row_bytes
                end = start + rows * output.row_bytes
        size_bytes += end - start
        lane.answer_limit.check(size_bytes)
        result.append(OutputTensor(lane.output_names[index], output.dtype, shape, bytes(block[start:end])))
    return result


def _offset(block: memoryview, table: int, row: int) -> int:
    return int.from_bytes(block[table + 8 * row : table + 8 * row + 8], "little")
