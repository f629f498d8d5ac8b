"""What a request must be, and that remembering shapes bypasses no check."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from predictd.engines.api import DType
from predictd.server.config.lane import WireTensor
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend import admission
from predictd.server.frontend.admission import Admission, LaneInputs
from predictd.server.frontend.inference import InputTensor
from predictd.server.transport.records import TicketFlag
from tests.fixtures.frontend import SECRET, config, signature

X = WireTensor("x", DType.FP32, (-1, 2))
Z = WireTensor("z", DType.INT64, (-1,))
TEXT = WireTensor("text", DType.BYTES, (-1,))


def checks(*specs: WireTensor, batches: bool = True, lane: int = 1) -> LaneInputs:
    return LaneInputs(config(lane), signature(specs, batches=batches), SECRET)


def tensor(name: str, dtype: DType, shape: tuple[int, ...], data: bytes | None = None) -> InputTensor:
    if data is None:
        elements = 1
        for size in shape:
            elements *= size
        data = bytes(elements * dtype.itemsize)
    return InputTensor(name, dtype, shape, data)


def x(*shape: int) -> InputTensor:
    return tensor("x", DType.FP32, shape)


def texts(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def refusal(inputs: LaneInputs, *tensors: InputTensor) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        inputs.admit(tensors)
    return str(caught.value)


def admit(inputs: LaneInputs, *tensors: InputTensor) -> Admission:
    return inputs.admit(tensors)


def test_a_request_is_laid_out_in_the_order_of_the_signature_whatever_order_it_was_sent_in() -> None:
    admitted = admit(checks(X, Z), tensor("z", DType.INT64, (3,)), x(3, 2))
    assert admitted.order == (1, 0)
    assert [placed.dtype for placed in admitted.layout.inputs] == [DType.FP32, DType.INT64]
    assert (admitted.layout.rows, admitted.flags) == (3, 0)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([x(1, 2), x(1, 2)], "input 'x' of model 'm' is given twice"),
        ([], "input 'x' of model 'm' is missing; expected FP32[-1, 2]"),
        (
            [tensor("y", DType.FP32, (1, 2))],
            "unexpected input 'y' for model 'm'; it takes 'x'",
        ),
        (
            [tensor("x", DType.FP64, (1, 2))],
            "input 'x' of model 'm' has type FP64; expected FP32",
        ),
        ([x(1, 3)], "input 'x' of model 'm' has shape [1, 3]; expected [-1, 2] (-1: any size)"),
        ([x(1, 2, 1)], "input 'x' of model 'm' has shape [1, 2, 1]; expected [-1, 2] (-1: any size)"),
        ([x()], "input 'x' of model 'm' has shape []; expected [-1, 2] (-1: any size)"),
        (
            [InputTensor("x", DType.FP32, (-1, 2), b"")],
            "input 'x' of model 'm' has shape [-1, 2]; expected [-1, 2] (-1: any size)",
        ),
        ([x(17, 2)], "input 'x' of model 'm' has 17 rows; a request may have 16 (max_request_rows)"),
        (
            [tensor("x", DType.FP32, (2, 2), bytes(15))],
            "input 'x' of model 'm' carries 15 bytes; FP32[2, 2] takes 16",
        ),
    ],
)
def test_a_refusal_names_the_input_the_expected_and_the_given(
    tensors: Sequence[InputTensor], message: str
) -> None:
    assert refusal(checks(X), *tensors) == message


def test_all_inputs_must_have_the_same_rows() -> None:
    message = refusal(checks(X, Z), x(2, 2), tensor("z", DType.INT64, (3,)))
    assert message == "the inputs of model 'm' have different rows: 'x' has 2, 'z' has 3"


def test_a_shape_that_was_seen_before_is_still_checked_for_its_bytes() -> None:
    inputs = checks(X)
    first = admit(inputs, x(2, 2))
    assert admit(inputs, x(2, 2)) is first
    for size in (0, 15, 17, 1 << 20):
        message = refusal(inputs, tensor("x", DType.FP32, (2, 2), bytes(size)))
        assert message == f"input 'x' of model 'm' carries {size} bytes; FP32[2, 2] takes 16"


def test_a_refused_shape_stays_refused() -> None:
    inputs = checks(X)
    assert refusal(inputs, x(1, 3)) == refusal(inputs, x(1, 3))
    assert not inputs._known


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_SHAPES_KEPT", 3)
    inputs = checks(WireTensor("x", DType.FP32, (-1, -1)))
    for width in range(10):
        admitted = admit(inputs, x(1, width))
        assert admitted.layout.inputs[0].shape == (1, width)
        assert len(inputs._known) <= 3


def test_strings_are_never_remembered() -> None:
    inputs = checks(TEXT)
    for value in (b"a", b"bcd"):
        admitted = admit(inputs, tensor("text", DType.BYTES, (1,), texts(value)))
        assert admitted.layout.inputs[0].nbytes == 4 + len(value)
        assert admitted.flags == TicketFlag.VARYING
    assert not inputs._known


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        b"\1\0\0",
        b"\2\0\0\0a",
        b"\xff\xff\xff\xff",
        texts(b"a"),
        texts(b"a", b"b", b"c"),
        texts(b"a", b"b") + b"\0",
    ],
)
def test_malformed_strings_are_refused(data: bytes) -> None:
    message = refusal(checks(TEXT), tensor("text", DType.BYTES, (2,), data))
    assert message == (
        f"input 'text' of model 'm' is not 2 length-prefixed elements in {len(data)} bytes; shape [2]"
    )


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_well_formed_strings_are_taken_in_any_buffer(kind: type) -> None:
    data = kind(texts(b"", b"a\0b"))
    admitted = admit(checks(TEXT), InputTensor("text", DType.BYTES, (2,), data))
    assert admitted.layout.inputs[0].nbytes == len(data)


def test_no_strings_take_no_bytes() -> None:
    assert admit(checks(TEXT), tensor("text", DType.BYTES, (0,), b"")).layout.rows == 0
    assert "is not 0 length-prefixed" in refusal(checks(TEXT), tensor("text", DType.BYTES, (0,), texts(b"")))


def test_an_optional_input_may_be_left_out() -> None:
    inputs = checks(X, WireTensor("bias", DType.FP32, (-1, 1), optional=True))
    without, given = admit(inputs, x(2, 2)), admit(inputs, x(2, 2), tensor("bias", DType.FP32, (2, 1)))
    assert (without.order, given.order) == ((0, -1), (0, 1))
    assert [placed.present for placed in without.layout.inputs] == [True, False]
    assert without.shape_key != given.shape_key


def test_an_optional_input_that_comes_first_and_is_left_out_does_not_count_for_the_rows() -> None:
    inputs = checks(WireTensor("bias", DType.FP32, (-1, 1), optional=True), X, Z)
    assert admit(inputs, x(3, 2), tensor("z", DType.INT64, (3,))).layout.rows == 3
    assert "'x' has 2, 'z' has 3" in refusal(inputs, x(2, 2), tensor("z", DType.INT64, (3,)))


def test_a_batched_request_without_any_input_has_no_rows() -> None:
    inputs = checks(WireTensor("bias", DType.FP32, (-1, 1), optional=True))
    assert refusal(inputs) == "the request to model 'm' has no input, so it has no rows"


def test_a_model_without_inputs_is_asked_for_nothing() -> None:
    assert admit(checks(batches=False)).layout.inputs == ()


@pytest.mark.parametrize(
    "shape", [(1, 2**41), (1, 2**62), (1, 2**63), (1, 2**200), (0, 2**41), (1, 0, 2**41), (0, 2**21, 2**21)]
)
def test_dimensions_beyond_reach_are_refused_also_beside_a_zero(shape: tuple[int, ...]) -> None:
    spec = WireTensor("x", DType.FP32, (-1,) * len(shape))
    message = refusal(checks(spec), InputTensor("x", DType.FP32, shape, b""))
    assert message.startswith(f"input 'x' of model 'm' has shape {list(shape)}; ")


def test_a_large_shape_without_its_bytes_is_refused() -> None:
    spec = WireTensor("x", DType.FP32, (-1, -1))
    message = refusal(checks(spec), InputTensor("x", DType.FP32, (1, 2**40), b""))
    assert message == f"input 'x' of model 'm' carries 0 bytes; FP32[1, {2**40}] takes {2**42}"


def test_an_empty_tensor_is_a_request() -> None:
    admitted = admit(checks(X), x(0, 2))
    assert (admitted.layout.rows, admitted.layout.inputs[0].nbytes) == (0, 0)


def test_a_model_that_does_not_batch_takes_its_shape_as_it_is() -> None:
    inputs = checks(WireTensor("x", DType.FP32, (3, -1)), WireTensor("s", DType.INT64, ()), batches=False)
    admitted = admit(inputs, x(3, 40), tensor("s", DType.INT64, ()))
    assert admitted.layout.rows == 1
    assert refusal(inputs, x(4, 40), tensor("s", DType.INT64, ())) == (
        "input 'x' of model 'm' has shape [4, 40]; expected [3, -1] (-1: any size)"
    )
    assert admit(inputs, x(3, 41), tensor("s", DType.INT64, ())).shape_key != admitted.shape_key


def test_requests_share_a_run_exactly_when_their_rows_have_one_shape() -> None:
    inputs = checks(WireTensor("x", DType.FP32, (-1, -1)))
    assert admit(inputs, x(1, 5)).shape_key == admit(inputs, x(9, 5)).shape_key
    assert admit(inputs, x(1, 5)).shape_key != admit(inputs, x(1, 6)).shape_key


def test_equal_shapes_of_different_lanes_have_different_keys() -> None:
    assert admit(checks(X, lane=1), x(1, 2)).shape_key != admit(checks(X, lane=2), x(1, 2)).shape_key
