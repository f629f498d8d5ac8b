"""Engine outputs into a response block, where front ends cut the answers from."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import DType, TensorSpec
from predictd.server.transport.blocks import OutputSize, ResponseLayout, lay_out_response
from predictd.server.worker.strings import encode_strings

Array = npt.NDArray[Any]


def fixed_layout(lane: int, outputs: Sequence[TensorSpec], rows: int) -> ResponseLayout | None:
    """The layout of a batch of `rows` when it can be known before the run: every other dimension is fixed."""
    sizes = []
    for spec in outputs:
        if spec.dtype is DType.BYTES or not spec.shape or any(size < 0 for size in spec.shape[1:]):
            return None
        shape = (rows, *spec.shape[1:])
        row_bytes = math.prod(shape[1:]) * spec.dtype.itemsize
        sizes.append(OutputSize(spec.dtype, shape, rows * row_bytes, row_bytes))
    return lay_out_response(lane, rows, sizes)


def output_views(layout: ResponseLayout, block: memoryview) -> list[Array]:
    """Arrays inside the block for the engine to write into."""
    return [np.ndarray(output.shape, output.dtype.numpy, block, output.offset) for output in layout.outputs]


class EncodedOutputs:
    """Outputs whose sizes are known now that they were computed.

    Attributes:
        layout: Where they go.
    """

    def __init__(
        self, lane: int, rows: int, specs: Sequence[TensorSpec], arrays: Sequence[Array], batches: bool
    ) -> None:
        self._payloads: list[tuple[bytes | Array, list[int] | None]] = []
        sizes = []
        for spec, array in zip(specs, arrays, strict=True):
            if spec.dtype is DType.BYTES:
                encoded, ends = encode_strings(array.reshape(-1))
                # Without rows there is no table: lay_out_response places none.
                row_ends = _row_ends(ends, array.shape) if batches and len(array) else None
                self._payloads.append((encoded, row_ends))
                sizes.append(
                    OutputSize(spec.dtype, array.shape, len(encoded), 0, array.shape[0] if batches else 0)
                )
            else:
                contiguous = np.ascontiguousarray(array).reshape(array.shape)
                self._payloads.append((contiguous, None))
                row_bytes = math.prod(array.shape[1:]) * array.itemsize if batches else 0
                sizes.append(OutputSize(spec.dtype, array.shape, contiguous.nbytes, row_bytes))
        self.layout = lay_out_response(lane, rows, sizes)

    def write(self, block: memoryview) -> None:
        """Copy everything into the block."""
        data = np.frombuffer(block, np.uint8)
        for output, (payload, row_ends) in zip(self.layout.outputs, self._payloads, strict=True):
            if row_ends is not None:
                struct.pack_into(f"<{len(row_ends)}Q", block, output.row_offsets, *row_ends)
            if isinstance(payload, bytes):
                block[output.offset : output.offset + len(payload)] = payload
            elif payload.nbytes:
                data[output.offset : output.offset + payload.nbytes] = payload.reshape(-1).view(np.uint8)


def _row_ends(ends: list[int], shape: tuple[int, ...]) -> list[int]:
    per_row = math.prod(shape[1:])
    return [ends[row * per_row] for row in range(shape[0] + 1)]
