"""Requests share a run exactly when their shapes agree, whatever came before them."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.engines.api import DType
from predictd.server.config.lane import WireTensor
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.admission import LaneInputs
from predictd.server.frontend.inference import InputTensor
from predictd.server.transport.blocks import read_request
from tests.fixtures.frontend import SECRET, config, signature

sizes = st.integers(0, 4)
pairs = st.tuples(st.lists(sizes, min_size=2, max_size=2), st.lists(sizes, min_size=1, max_size=1))
rows = st.integers(0, 5)


def lane_inputs(*, batches: bool) -> LaneInputs:
    specs = (WireTensor("a", DType.FP32, (-1, -1, -1)), WireTensor("b", DType.INT16, (-1, -1)))
    return LaneInputs(config(), signature(specs, batches=batches), SECRET)


def tensors(number: int, shapes: tuple[list[int], list[int]]) -> list[InputTensor]:
    made = []
    for name, dtype, shape in zip("ab", (DType.FP32, DType.INT16), shapes, strict=True):
        full = (number, *shape)
        made.append(InputTensor(name, dtype, full, bytes(math.prod(full) * dtype.itemsize)))
    return made


@given(st.booleans(), st.lists(st.tuples(rows, pairs), min_size=2, max_size=6))
def test_keys_are_equal_exactly_when_the_shapes_are_apart_from_the_batch(
    batches: bool, requests: list[tuple[int, tuple[list[int], list[int]]]]
) -> None:
    inputs = lane_inputs(batches=batches)
    keys: dict[object, int] = {}
    for number, shapes in requests:
        admission = inputs.admit(tensors(number, shapes))
        identity = str(shapes) if batches else (number, str(shapes))
        assert keys.setdefault(identity, admission.shape_key) == admission.shape_key
    assert len(set(keys.values())) == len(keys)


@given(rows, pairs)
def test_what_was_laid_out_is_what_a_worker_reads(number: int, shapes: tuple[list[int], list[int]]) -> None:
    sent = tensors(number, shapes)
    layout = lane_inputs(batches=True).admit(sent).layout
    read = read_request(memoryview(layout.head.ljust(layout.size_bytes, b"\0")))
    assert (read.rows, read.size_bytes) == (number, layout.size_bytes)
    assert [placed.shape for placed in read.inputs] == [tensor.shape for tensor in sent]
    ends = [placed.offset + placed.nbytes for placed in read.inputs]
    assert len(layout.head) <= read.inputs[0].offset
    assert ends[0] <= read.inputs[1].offset
    assert ends[1] == layout.size_bytes


@given(
    st.lists(st.integers(-(2**70), 2**70), max_size=4),
    st.binary(max_size=64),
    st.sampled_from([DType.FP32, DType.BYTES, DType.BOOL]),
    st.booleans(),
)
def test_any_request_is_admitted_with_its_bytes_or_refused(
    shape: list[int], data: bytes, dtype: DType, batches: bool
) -> None:
    inputs = LaneInputs(
        config(), signature([WireTensor("x", dtype, (-1,) * len(shape))], batches=batches), SECRET
    )
    with suppress(InvalidRequestError):
        admission = inputs.admit([InputTensor("x", dtype, tuple(shape), data)])
        assert admission.layout.inputs[0].nbytes == len(data)


@given(st.lists(st.binary(max_size=6), max_size=6), st.data())
def test_strings_are_taken_whole_and_never_in_pieces(values: list[bytes], draw: st.DataObject) -> None:
    inputs = LaneInputs(config(), signature([WireTensor("t", DType.BYTES, (-1,))]), SECRET)
    encoded = b"".join(len(value).to_bytes(4, "little") + value for value in values)
    shape = (len(values),)
    assert inputs.admit([InputTensor("t", DType.BYTES, shape, encoded)]).layout.rows == len(values)
    cut = draw.draw(st.integers(-1, len(encoded) - 1))
    broken = encoded + b"\0" if cut < 0 else encoded[:cut]
    with pytest.raises(InvalidRequestError):
        inputs.admit([InputTensor("t", DType.BYTES, shape, broken)])
