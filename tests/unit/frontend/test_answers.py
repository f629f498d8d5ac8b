"""Rows cut out of batches."""

from __future__ import annotations

import os
import struct

import pytest

from predictd.engines.api import DType
from predictd.server.config.lane import WireTensor
from predictd.server.frontend import answers
from predictd.server.frontend.answers import WorkerMemory, cut
from predictd.server.frontend.inference import OutputTensor
from predictd.server.frontend.routing import Lane, Routes
from predictd.server.transport.blocks import OutputSize, ResponseLayout, encode_error, lay_out_response
from predictd.server.transport.memory import create_shared
from tests.fixtures.frontend import SECRET, publication, signature, view

BLOCK_BYTES = 1024


def lane_of(*outputs: WireTensor, batches: bool = True) -> Lane:
    routes = Routes(SECRET)
    routes.publish(publication(view(signature=signature(outputs=outputs, batches=batches))))
    return routes.lane("m", None, None)


def block_of(layout: ResponseLayout, *parts: tuple[int, bytes]) -> memoryview:
    block = bytearray(BLOCK_BYTES)
    block[: len(layout.head)] = layout.head
    for at, data in parts:
        block[at : at + len(data)] = data
    return memoryview(block)


def test_a_request_gets_its_own_rows_of_the_outputs_it_asked_for() -> None:
    lane = lane_of(WireTensor("a", DType.UINT8, (-1, 2)), WireTensor("b", DType.INT16, (-1,)))
    layout = lay_out_response(
        1, 4, [OutputSize(DType.UINT8, (4, 2), 8, 2), OutputSize(DType.INT16, (4,), 8, 2)]
    )
    a, b = layout.outputs
    block = block_of(layout, (a.offset, bytes(range(8))), (b.offset, struct.pack("<4h", -1, -2, -3, -4)))
    assert cut(lane, block, layout, (1, 0), 1, 2) == [
        OutputTensor("b", DType.INT16, (2,), struct.pack("<2h", -2, -3)),
        OutputTensor("a", DType.UINT8, (2, 2), bytes([2, 3, 4, 5])),
    ]


def test_no_rows_are_an_empty_answer() -> None:
    lane = lane_of(WireTensor("a", DType.UINT8, (-1, 2)))
    layout = lay_out_response(1, 4, [OutputSize(DType.UINT8, (4, 2), 8, 2)])
    assert cut(lane, block_of(layout), layout, (0,), 4, 0) == [OutputTensor("a", DType.UINT8, (0, 2), b"")]


def test_rows_of_different_length_are_found_by_their_table() -> None:
    lane = lane_of(WireTensor("t", DType.BYTES, (-1,)))
    rows = [b"\1\0\0\0a", b"\0\0\0\0", b"\3\0\0\0xyz"]
    layout = lay_out_response(1, 3, [OutputSize(DType.BYTES, (3,), 16, 0, varying_rows=3)])
    (t,) = layout.outputs
    block = block_of(layout, (t.row_offsets, struct.pack("<4Q", 0, 5, 9, 16)), (t.offset, b"".join(rows)))
    for first in range(3):
        (answer,) = cut(lane, block, layout, (0,), first, 1)
        assert (answer.shape, answer.data) == ((1,), rows[first])
    assert cut(lane, block, layout, (0,), 1, 2)[0].data == rows[1] + rows[2]


def test_a_model_that_does_not_batch_answers_with_the_whole_output() -> None:
    lane = lane_of(WireTensor("s", DType.FP64, ()), WireTensor("v", DType.UINT8, (-1,)), batches=False)
    layout = lay_out_response(1, 0, [OutputSize(DType.FP64, (), 8, 0), OutputSize(DType.UINT8, (3,), 3, 0)])
    s, v = layout.outputs
    block = block_of(layout, (s.offset, struct.pack("<d", 2.5)), (v.offset, b"abc"))
    assert cut(lane, block, layout, (0, 1), 0, 1) == [
        OutputTensor("s", DType.FP64, (), struct.pack("<d", 2.5)),
        OutputTensor("v", DType.UINT8, (3,), b"abc"),
    ]


def test_an_answer_is_a_copy() -> None:
    lane = lane_of(WireTensor("a", DType.UINT8, (-1,)))
    layout = lay_out_response(1, 2, [OutputSize(DType.UINT8, (2,), 2, 1)])
    block = block_of(layout, (layout.outputs[0].offset, b"ab"))
    (answer,) = cut(lane, block, layout, (0,), 0, 2)
    block[layout.outputs[0].offset] = 0
    assert answer.data == b"ab"


def test_segments_are_mapped_and_cut_into_blocks() -> None:
    fd, writable = create_shared("predictd-test", 2 * BLOCK_BYTES)
    encoded = encode_error("no such luck")
    writable[BLOCK_BYTES : BLOCK_BYTES + len(encoded)] = encoded
    memory = WorkerMemory()
    memory.add_segment(3, fd, BLOCK_BYTES, 2)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert len(memory.block(3, 0)) == BLOCK_BYTES
    assert memory.block(3, 0).readonly
    assert memory.error(3, 1) == "no such luck"
    with pytest.raises(ValueError, match="no response"):
        memory.error(3, 0)


def test_a_segment_that_is_smaller_than_announced_is_refused_and_its_descriptor_closed() -> None:
    fd, _ = create_shared("predictd-test", BLOCK_BYTES)
    with pytest.raises(ValueError, match="1024 bytes, 2048 were announced"):
        WorkerMemory().add_segment(0, fd, BLOCK_BYTES, 2)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_batches_of_one_shape_share_a_directory_and_those_kept_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "_LAYOUTS_KEPT", 3)
    memory = WorkerMemory()

    def layout(rows: int) -> ResponseLayout:
        made = lay_out_response(1, rows, [OutputSize(DType.UINT8, (rows,), rows, 1)])
        return memory.layout(block_of(made))

    assert layout(1) is layout(1)
    for rows in range(1, 10):
        assert layout(rows).outputs[0].shape == (rows,)
        assert len(memory._layouts) <= 3
