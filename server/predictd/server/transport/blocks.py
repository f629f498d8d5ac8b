"""What stands in a block: the tensors of a request, or the outputs of a batch.

A request block starts with a header and one descriptor an input; a response block with a header and one descriptor
an output. Tensors follow at 64-byte-aligned offsets, so an engine can use them where they lie. The layout of
requests of one shape is the same to the byte, so front ends keep it as a template and workers read it once a shape.

Readers trust nothing: whatever stands in a block, reading it gives tensors inside the block or a ValueError.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from predictd.engines.api import DType
from predictd.server.transport.allocator import ALIGNMENT_BYTES, align

REQUEST_MAGIC = 0x31515250  # "PRQ1"
RESPONSE_MAGIC = 0x31505250  # "PRP1"
HEADER_BYTES = 64
CANCELLED_OFFSET = 12
GENERATION_OFFSET = 4

REQUEST_HEADER = struct.Struct("<IIIB3xIIQ32x")
INPUT_DESCRIPTOR = struct.Struct("<QQBBB5x")
RESPONSE_HEADER = struct.Struct("<IIIIIIQ32x")
OUTPUT_DESCRIPTOR = struct.Struct("<QQQQBB6x")
_RANK_OFFSET = 33
DIMENSION_BYTES = 8
ROW_OFFSET_BYTES = 8
ERROR_LIMIT_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor inside a request block.

    Attributes:
        offset: Bytes from the start of the block; 0 when the optional input is absent.
        nbytes: Its size.
        dtype: Element type.
        shape: As sent, batch dimension included.
    """

    offset: int
    nbytes: int
    dtype: DType
    shape: tuple[int, ...]

    @property
    def present(self) -> bool:
        """False for an optional input that was left out."""
        return self.offset != 0


@dataclass(frozen=True, slots=True)
class RequestLayout:
    """Where everything of a request stands.

    Attributes:
        head: Header and descriptors, with generation 0 and not cancelled.
        inputs: In engine order.
        size_bytes: Bytes used in the block.
        rows: Rows of the request; 1 for a model that does not batch.
    """

    head: bytes
    inputs: tuple[Placed, ...]
    size_bytes: int
    rows: int


def lay_out_request(
    lane: int, rows: int, tensors: Sequence[tuple[DType, tuple[int, ...], int] | None]
) -> RequestLayout:
    """Place the inputs (dtype, shape, bytes; None for an absent one) of a request behind their descriptors."""
    at = HEADER_BYTES + sum(INPUT_DESCRIPTOR.size + DIMENSION_BYTES * len(t[1] if t else ()) for t in tensors)
    placed: list[Placed] = []
    for tensor in tensors:
        if tensor is None:
            placed.append(Placed(0, 0, DType.BOOL, ()))
            continue
        dtype, shape, nbytes = tensor
        at = align(at)
        placed.append(Placed(at, nbytes, dtype, shape))
        at += nbytes
    head = bytearray(REQUEST_HEADER.pack(REQUEST_MAGIC, 0, lane, 0, len(placed), rows, at))
    for one in placed:
        head += INPUT_DESCRIPTOR.pack(one.offset, one.nbytes, one.dtype, len(one.shape), one.present)
        head += struct.pack(f"<{len(one.shape)}q", *one.shape)
    return RequestLayout(bytes(head), tuple(placed), at, rows)


def read_request(block: memoryview) -> RequestLayout:
    """Read the header and descriptors of a request.

    Raises:
        ValueError: The block holds no request or one that reaches beyond it. This is a bug, or a broken front end.
    """
    magic, _, _, _, count, rows, size_bytes = _unpack(REQUEST_HEADER, block, 0)
    if magic != REQUEST_MAGIC or size_bytes > len(block):
        raise ValueError("the block holds no request")
    at = HEADER_BYTES
    placed = []
    for _ in range(count):
        offset, nbytes, dtype, rank, present = _unpack(INPUT_DESCRIPTOR, block, at)
        shape, at = _read_shape(block, at + INPUT_DESCRIPTOR.size, rank)
        one = Placed(offset, nbytes, DType(dtype), shape)
        if one.present != bool(present):
            raise ValueError("an input is neither present nor absent")
        if one.present:
            _check_tensor(offset, nbytes, one.dtype, shape, size_bytes)
        placed.append(one)
    if any(one.present and one.offset < at for one in placed):
        raise ValueError("an input overlaps its descriptor")
    return RequestLayout(bytes(block[:at]), tuple(placed), size_bytes, rows)


def _unpack(layout: struct.Struct, block: memoryview, at: int) -> tuple[int, ...]:
    try:
        return layout.unpack_from(block, at)
    except struct.error as error:
        raise ValueError(f"the block ends too early: {error}") from None


def _read_shape(block: memoryview, at: int, rank: int) -> tuple[tuple[int, ...], int]:
    """The dimensions that stand at `at`, and the offset behind them."""
    try:
        shape = struct.unpack_from(f"<{rank}q", block, at)
    except struct.error as error:
        raise ValueError(f"the block ends too early: {error}") from None
    if shape and min(shape) < 0:
        raise ValueError("a tensor has a negative dimension")
    return shape, at + DIMENSION_BYTES * rank


def _check_tensor(offset: int, nbytes: int, dtype: DType, shape: tuple[int, ...], size_bytes: int) -> None:
    """A tensor lies inside its block, and has the bytes that its type and shape take."""
    if offset % ALIGNMENT_BYTES or offset + nbytes > size_bytes:
        raise ValueError("a tensor reaches beyond its block")
    elements = math.prod(shape)
    # Each string takes at least the four bytes of its length.
    fits = 4 * elements <= nbytes if dtype is DType.BYTES else elements * dtype.itemsize == nbytes
    if not fits:
        raise ValueError(f"a tensor of {dtype.name}{list(shape)} does not have {nbytes} bytes")


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a batch inside a response block.

    Attributes:
        offset: Bytes from the start of the block.
        nbytes: Its size over the whole batch.
        row_bytes: Bytes of a row; 0 where rows vary or the model does not batch.
        row_offsets: Where the table of rows + 1 u64 offsets (relative to `offset`) stands; 0 where there is none.
        dtype: Element type.
        shape: Of the whole batch.
    """

    offset: int
    nbytes: int
    row_bytes: int
    row_offsets: int
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ResponseLayout:
    """Where the outputs of a batch stand. `head` is what a response block starts with."""

    head: bytes
    outputs: tuple[Output, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class OutputSize:
    """What has to be placed: `varying_rows` is the number of rows of a tensor whose rows differ in size, else 0."""

    dtype: DType
    shape: tuple[int, ...]
    nbytes: int
    row_bytes: int
    varying_rows: int = 0


def lay_out_response(lane: int, rows: int, sizes: Sequence[OutputSize]) -> ResponseLayout:
    """Place the outputs of a batch behind their descriptors."""
    at = HEADER_BYTES + sum(OUTPUT_DESCRIPTOR.size + DIMENSION_BYTES * len(size.shape) for size in sizes)
    outputs = []
    for size in sizes:
        row_offsets = 0
        if size.varying_rows:
            at = align(at)
            row_offsets = at
            at += ROW_OFFSET_BYTES * (size.varying_rows + 1)
        at = align(at)
        outputs.append(Output(at, size.nbytes, size.row_bytes, row_offsets, size.dtype, size.shape))
        at += size.nbytes
    head = bytearray(RESPONSE_HEADER.pack(RESPONSE_MAGIC, lane, len(outputs), rows, 0, 0, at))
    for one in outputs:
        head += OUTPUT_DESCRIPTOR.pack(
            one.offset, one.nbytes, one.row_bytes, one.row_offsets, one.dtype, len(one.shape)
        )
        head += struct.pack(f"<{len(one.shape)}q", *one.shape)
    return ResponseLayout(bytes(head), tuple(outputs), at)


def response_head_bytes(block: memoryview) -> int:
    """How many bytes the header and the descriptors of a response take.

    Raises:
        ValueError: The block holds no response.
    """
    at = HEADER_BYTES
    try:
        for _ in range(RESPONSE_HEADER.unpack_from(block)[2]):
            at += OUTPUT_DESCRIPTOR.size + DIMENSION_BYTES * block[at + _RANK_OFFSET]
    except (struct.error, IndexError):
        raise ValueError("the block holds no response") from None
    if at > len(block):
        raise ValueError("the block holds no response")
    return at


def read_response(block: memoryview) -> ResponseLayout:
    """Read the directory of a response.

    Raises:
        ValueError: The block holds no response or one that reaches beyond it. This is a bug, or a broken worker.
    """
    magic, _, count, _, _, _, size_bytes = _unpack(RESPONSE_HEADER, block, 0)
    if magic != RESPONSE_MAGIC or size_bytes > len(block):
        raise ValueError("the block holds no response")
    at = HEADER_BYTES
    outputs = []
    for _ in range(count):
        offset, nbytes, row_bytes, row_offsets, dtype, rank = _unpack(OUTPUT_DESCRIPTOR, block, at)
        shape, at = _read_shape(block, at + OUTPUT_DESCRIPTOR.size, rank)
        one = Output(offset, nbytes, row_bytes, row_offsets, DType(dtype), shape)
        _check_tensor(offset, nbytes, one.dtype, shape, size_bytes)
        _check_rows(one)
        outputs.append(one)
    if any(one.offset < at or 0 < one.row_offsets < at for one in outputs):
        raise ValueError("an output overlaps its descriptor")
    return ResponseLayout(bytes(block[:at]), tuple(outputs), size_bytes)


def _check_rows(output: Output) -> None:
    """What says where a row starts, if anything does, agrees with the number of rows."""
    rows = output.shape[0] if output.shape else 0
    if output.row_bytes and output.row_bytes * rows != output.nbytes:
        raise ValueError("the rows of an output are not its bytes")
    if output.row_offsets and (
        output.row_offsets % ALIGNMENT_BYTES
        or output.row_offsets + ROW_OFFSET_BYTES * (rows + 1) > output.offset
    ):
        raise ValueError("the row offsets of an output do not end before it")


def encode_error(text: str) -> bytes:
    """A response block that carries an error text instead of outputs, cut where it is too long."""
    encoded = text.encode(errors="replace")[:ERROR_LIMIT_BYTES].decode(errors="ignore").encode()
    size = HEADER_BYTES + len(encoded)
    return RESPONSE_HEADER.pack(RESPONSE_MAGIC, 0, 0, 0, len(encoded), 0, size) + encoded


def read_error(block: memoryview) -> str:
    """The error text of a response block, empty if it has none.

    Raises:
        ValueError: The block holds no response. This is a bug, or a broken worker.
    """
    magic, _, _, _, length, _, size_bytes = _unpack(RESPONSE_HEADER, block, 0)
    if magic != RESPONSE_MAGIC or HEADER_BYTES + length > min(size_bytes, len(block)):
        raise ValueError("the block holds no response")
    return bytes(block[HEADER_BYTES : HEADER_BYTES + length]).decode(errors="replace")
