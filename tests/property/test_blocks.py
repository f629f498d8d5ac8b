"""Blocks say exactly what was put into them, and garbage in them is a ValueError, never more."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.engines.api import DType
from predictd.server.transport.blocks import (
    CANCELLED_OFFSET,
    ERROR_LIMIT_BYTES,
    GENERATION_OFFSET,
    HEADER_BYTES,
    REQUEST_HEADER,
    REQUEST_MAGIC,
    RESPONSE_HEADER,
    RESPONSE_MAGIC,
    OutputSize,
    encode_error,
    lay_out_request,
    lay_out_response,
    read_error,
    read_request,
    read_response,
    response_head_bytes,
)

SLACK_BYTES = 192

dtypes = st.sampled_from(DType)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[DType, tuple[int, ...], int]:
    dtype, shape = draw(dtypes), draw(shapes)
    if dtype is DType.BYTES:
        return dtype, shape, 4 * math.prod(shape) + draw(st.integers(0, 50))
    return dtype, shape, math.prod(shape) * dtype.itemsize


inputs = st.lists(st.none() | tensors(), max_size=6)
ids = st.integers(0, 2**32 - 1)


@st.composite
def outputs(draw: st.DrawFn, rows: int) -> OutputSize:
    dtype, shape, nbytes = draw(tensors())
    if not draw(st.booleans()):
        return OutputSize(dtype, shape, nbytes, 0)
    shape = (rows, *shape)
    if dtype is DType.BYTES:
        return OutputSize(dtype, shape, 4 * math.prod(shape) + draw(st.integers(0, 50)), 0, rows)
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    return OutputSize(dtype, shape, rows * row_bytes, row_bytes)


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, list[OutputSize]]:
    rows = draw(st.integers(0, 9))
    return rows, draw(st.lists(outputs(rows), max_size=5))


def block_of(head: bytes, size_bytes: int) -> memoryview:
    block = bytearray(size_bytes + SLACK_BYTES)
    block[: len(head)] = head
    return memoryview(block)


@given(ids, ids, inputs)
def test_a_request_reads_back_as_it_was_laid_out(
    lane: int, rows: int, given_tensors: list[tuple[DType, tuple[int, ...], int] | None]
) -> None:
    layout = lay_out_request(lane, rows, given_tensors)
    block = block_of(layout.head, layout.size_bytes)
    assert read_request(block) == layout
    assert struct.unpack_from("<I", block, 8) == (lane,)
    assert block[CANCELLED_OFFSET] == 0
    assert struct.unpack_from("<I", block, GENERATION_OFFSET) == (0,)


@given(ids, inputs)
def test_the_tensors_of_a_request_are_aligned_and_apart(
    lane: int, given_tensors: list[tuple[DType, tuple[int, ...], int] | None]
) -> None:
    layout = lay_out_request(lane, 1, given_tensors)
    behind = len(layout.head)
    for placed, tensor in zip(layout.inputs, given_tensors, strict=True):
        assert placed.present == (tensor is not None)
        if tensor is not None:
            assert (placed.dtype, placed.shape, placed.nbytes) == tensor
            assert placed.offset % 64 == 0
            assert placed.offset >= behind
            behind = placed.offset + placed.nbytes
    assert behind == layout.size_bytes


@given(ids, ids, inputs)
def test_a_request_counts_as_cancelled_and_carries_its_generation_without_changing_its_layout(
    generation: int, rows: int, given_tensors: list[tuple[DType, tuple[int, ...], int] | None]
) -> None:
    layout = lay_out_request(3, rows, given_tensors)
    block = block_of(layout.head, layout.size_bytes)
    block[CANCELLED_OFFSET] = 1
    struct.pack_into("<I", block, GENERATION_OFFSET, generation)
    found = read_request(block)
    assert (found.inputs, found.size_bytes, found.rows) == (layout.inputs, layout.size_bytes, layout.rows)


@given(ids, batches())
def test_a_response_reads_back_as_it_was_laid_out(lane: int, batch: tuple[int, list[OutputSize]]) -> None:
    rows, sizes = batch
    layout = lay_out_response(lane, rows, sizes)
    block = block_of(layout.head, layout.size_bytes)
    assert read_response(block) == layout
    assert response_head_bytes(block) == len(layout.head)
    assert RESPONSE_HEADER.unpack_from(block)[1:4] == (lane, len(sizes), rows)


@given(batches())
def test_the_parts_of_a_response_are_aligned_and_apart(batch: tuple[int, list[OutputSize]]) -> None:
    rows, sizes = batch
    layout = lay_out_response(1, rows, sizes)
    behind = len(layout.head)
    for output, size in zip(layout.outputs, sizes, strict=True):
        if size.varying_rows:
            assert output.row_offsets % 64 == 0
            assert output.row_offsets >= behind
            behind = output.row_offsets + 8 * (size.varying_rows + 1)
        else:
            assert output.row_offsets == 0
        assert output.offset % 64 == 0
        assert output.offset >= behind
        behind = output.offset + output.nbytes
    assert behind == layout.size_bytes


@given(st.text(max_size=3000))
def test_an_error_text_reads_back(text: str) -> None:
    found = read_error(memoryview(encode_error(text)))
    assert len(found.encode()) <= ERROR_LIMIT_BYTES
    expected = text.encode(errors="replace").decode()
    assert expected == found or (expected.startswith(found) and len(found.encode()) > ERROR_LIMIT_BYTES - 4)


def test_a_block_with_outputs_has_no_error_text() -> None:
    layout = lay_out_response(1, 2, [OutputSize(DType.FP32, (2,), 8, 4)])
    assert read_error(block_of(layout.head, layout.size_bytes)) == ""


# Garbage ------------------------------------------------------------------------------------------------------


def harmless(block: memoryview) -> None:
    """Every reader gives something that lies inside the block, or raises ValueError."""
    try:
        request = read_request(block)
    except ValueError:
        pass
    else:
        assert request.size_bytes <= len(block)
        for placed in request.inputs:
            if placed.present:
                data = np.frombuffer(block, np.uint8)[placed.offset : placed.offset + placed.nbytes]
                assert len(data) == placed.nbytes
                if placed.dtype is not DType.BYTES:
                    assert math.prod(placed.shape) * placed.dtype.itemsize == placed.nbytes
    try:
        head = response_head_bytes(block)
        response = read_response(block)
    except ValueError:
        pass
    else:
        assert len(response.head) == head <= len(block)
        for output in response.outputs:
            assert output.offset + output.nbytes <= len(block)
            assert min(output.shape, default=0) >= 0
            if output.row_offsets:
                assert output.row_offsets + 8 * (output.shape[0] + 1) <= len(block) or not output.shape
    try:
        text = read_error(block)
    except ValueError:
        return
    assert len(text) <= len(block)


@given(st.binary(max_size=600))
def test_random_bytes_are_harmless(data: bytes) -> None:
    harmless(memoryview(data))


@given(
    st.sampled_from([REQUEST_MAGIC, RESPONSE_MAGIC]),
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 3), min_size=5, max_size=5),
    st.integers(0, 2**64 - 1) | st.integers(0, 600),
    st.binary(max_size=500),
)
def test_random_bytes_behind_a_plausible_header_are_harmless(
    magic: int, fields: list[int], size_bytes: int, rest: bytes
) -> None:
    harmless(memoryview(struct.pack("<6IQ32x", magic, *fields, size_bytes) + rest))


edits = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 255) | st.sampled_from([0, 1, 14, 255])),
    min_size=1,
    max_size=6,
)


def spoilt(head: bytes, size_bytes: int, changes: list[tuple[int, int]], cut: int) -> memoryview:
    block = block_of(head, size_bytes)
    for at, value in changes:
        block[at % len(head)] = value
    return block[: max(len(block) - cut, 0)]


@given(inputs, edits, st.integers(0, 400))
def test_a_spoilt_request_is_harmless(
    given_tensors: list[tuple[DType, tuple[int, ...], int] | None], changes: list[tuple[int, int]], cut: int
) -> None:
    layout = lay_out_request(1, 1, given_tensors)
    harmless(spoilt(layout.head, layout.size_bytes, changes, cut))


@given(batches(), edits, st.integers(0, 400))
def test_a_spoilt_response_is_harmless(
    batch: tuple[int, list[OutputSize]], changes: list[tuple[int, int]], cut: int
) -> None:
    layout = lay_out_response(1, batch[0], batch[1])
    harmless(spoilt(layout.head, layout.size_bytes, changes, cut))


HUGE = 2**62


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"),
    [
        (DType.FP32, (HUGE, HUGE), 4),
        (DType.FP32, (2,), 4),
        (DType.FP32, (2,), 12),
        (DType.FP32, (-1, -1), 4),
        (DType.BYTES, (HUGE,), 4),
        (DType.BYTES, (2,), 7),
    ],
)
def test_a_tensor_whose_shape_is_not_its_bytes_is_refused(
    dtype: DType, shape: tuple[int, ...], nbytes: int
) -> None:
    request = lay_out_request(1, 1, [(dtype, shape, nbytes)])
    with pytest.raises(ValueError, match=r"does not have|negative"):
        read_request(block_of(request.head, request.size_bytes))
    response = lay_out_response(1, 1, [OutputSize(dtype, shape, nbytes, 0)])
    with pytest.raises(ValueError, match=r"does not have|negative"):
        read_response(block_of(response.head, response.size_bytes))


@pytest.mark.parametrize("count", [1, 200, 2**32 - 1])
def test_more_descriptors_than_the_block_holds_are_refused(count: int) -> None:
    request = REQUEST_HEADER.pack(REQUEST_MAGIC, 0, 1, 0, count, 1, HEADER_BYTES)
    with pytest.raises(ValueError, match="ends too early"):
        read_request(memoryview(request))
    response = memoryview(RESPONSE_HEADER.pack(RESPONSE_MAGIC, 1, count, 1, 0, 0, HEADER_BYTES))
    with pytest.raises(ValueError, match="ends too early"):
        read_response(response)
    with pytest.raises(ValueError, match="no response"):
        response_head_bytes(response)


def test_row_offsets_that_reach_into_the_rows_are_refused() -> None:
    layout = lay_out_response(1, 3, [OutputSize(DType.BYTES, (3,), 12, 0, 3)])
    block = block_of(layout.head, layout.size_bytes)
    struct.pack_into("<Q", block, HEADER_BYTES + 24, layout.outputs[0].offset)
    with pytest.raises(ValueError, match="row offsets"):
        read_response(block)


def test_an_error_text_longer_than_its_block_is_refused() -> None:
    block = bytearray(encode_error("a text"))
    struct.pack_into("<I", block, 16, 100)
    with pytest.raises(ValueError, match="no response"):
        read_error(memoryview(block))
