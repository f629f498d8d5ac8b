from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from predictd.engines.api import DType
from predictd.protos.tfs import example_pb2
from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.tfs_examples import example_inputs, examples
from predictd.server.frontend.apis.tfs_tensors import string_elements
from predictd.server.frontend.inference import InputTensor, TensorInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 1 << 20


def feature(*values: float | bytes) -> example_pb2.Feature:
    """A feature of the kind that its first value has."""
    kinds: dict[type, tuple[str, Any]] = {
        bytes: ("bytes_list", example_pb2.BytesList),
        float: ("float_list", example_pb2.FloatList),
        int: ("int64_list", example_pb2.Int64List),
    }
    name, kind = kinds[type(values[0])]
    return example_pb2.Feature(**{name: kind(value=values)})


def example(**features: example_pb2.Feature) -> example_pb2.Example:
    return example_pb2.Example(features=example_pb2.Features(feature=features))


def built(
    rows: Sequence[example_pb2.Example], *infos: TensorInfo, bytes_max: int = LIMIT
) -> list[InputTensor]:
    given = examples(pb.Input(example_list=pb.ExampleList(examples=rows)))
    return example_inputs(given, infos, bytes_max)


def test_each_example_is_a_row() -> None:
    a, b, c = built(
        [
            example(a=feature(1.0, 2.0), b=feature(1), c=feature(b"x")),
            example(a=feature(3.0, 4.0), b=feature(-2), c=feature(b""), other=feature(9)),
        ],
        TensorInfo("a", DType.FP32, (-1, 2)),
        TensorInfo("b", DType.INT32, (-1,)),
        TensorInfo("c", DType.BYTES, (-1, 1)),
    )
    assert (a.dtype, a.shape, np.frombuffer(a.data, np.float32).tolist()) == (
        DType.FP32,
        (2, 2),
        [1, 2, 3, 4],
    )
    assert (b.dtype, b.shape, np.frombuffer(b.data, np.int32).tolist()) == (DType.INT32, (2,), [1, -2])
    assert (c.dtype, c.shape, list(string_elements(c.data))) == (DType.BYTES, (2, 1), [b"x", b""])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (DType.FP64, (0.5, -2.0)),
        (DType.BOOL, (0, 1)),
        (DType.INT8, (-128, 127)),
        (DType.INT16, (-(2**15), 2**15 - 1)),
        (DType.INT64, (-(2**63), 2**63 - 1)),
        (DType.UINT8, (0, 255)),
        (DType.UINT16, (0, 2**16 - 1)),
        (DType.UINT32, (0, 2**32 - 1)),
        (DType.UINT64, (0, 2**63 - 1)),
    ],
)
def test_values_arrive_unchanged(dtype: DType, values: tuple[float, ...]) -> None:
    (tensor,) = built([example(x=feature(*values))], TensorInfo("x", dtype, (-1, 2)))
    assert np.frombuffer(tensor.data, dtype.numpy).tolist() == list(values)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (DType.BOOL, 2),
        (DType.INT8, 128),
        (DType.INT8, -129),
        (DType.UINT8, -1),
        (DType.UINT64, -1),
        (DType.INT32, 2**31),
    ],
)
def test_a_value_that_does_not_fit_is_refused(dtype: DType, value: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"Feature: x: {value} is not an {dtype.name}"):
        built([example(x=feature(value))], TensorInfo("x", dtype, (-1,)))


def test_the_context_completes_each_example() -> None:
    message = pb.Input(
        example_list_with_context=pb.ExampleListWithContext(
            examples=[example(a=feature(1)), example(a=feature(2), b=feature(7))],
            context=example(a=feature(8), b=feature(9)),
        )
    )
    a, b = example_inputs(
        examples(message), [TensorInfo("a", DType.INT64, (-1,)), TensorInfo("b", DType.INT64, (-1,))], LIMIT
    )
    assert np.frombuffer(a.data, np.int64).tolist() == [1, 2]
    assert np.frombuffer(b.data, np.int64).tolist() == [9, 7]


def test_an_optional_input_may_be_absent_from_all_examples_only() -> None:
    a, b = TensorInfo("a", DType.INT64, (-1,)), TensorInfo("b", DType.INT64, (-1,), optional=True)
    assert [tensor.name for tensor in built([example(a=feature(1))], a, b)] == ["a"]
    assert [tensor.name for tensor in built([example(a=feature(1), b=feature(1))], a, b)] == ["a", "b"]
    with pytest.raises(InvalidRequestError, match="Feature: b, example 1: it is required"):
        built([example(a=feature(1), b=feature(1)), example(a=feature(1))], a, b)


@pytest.mark.parametrize(
    ("row", "info", "reason"),
    [
        (
            example(),
            TensorInfo("x", DType.FP32, (-1,)),
            "Feature: x, example 0: it is required but could not",
        ),
        (
            example(x=example_pb2.Feature()),
            TensorInfo("x", DType.FP32, (-1,)),
            "Feature: x, example 0: it is required but could not",
        ),
        (
            example(x=feature(1)),
            TensorInfo("x", DType.FP32, (-1,)),
            "data types don't match: it is sent in int64_list, and FP32 takes float_list",
        ),
        (
            example(x=feature(1.0, 2.0)),
            TensorInfo("x", DType.FP32, (-1, 3)),
            "it has 2 values, and the model takes 3",
        ),
        (
            example(x=feature(1.0)),
            TensorInfo("x", DType.FP32, ()),
            r"cannot be built from features.*FP32\[\]",
        ),
        (
            example(x=feature(1.0)),
            TensorInfo("x", DType.FP32, (-1, -1)),
            r"cannot be built from features: it is FP32\[-1, -1\]",
        ),
        (example(x=feature(1.0)), TensorInfo("x", DType.FP16, (-1,)), "cannot be built from features"),
        (example(x=feature(1.0)), TensorInfo("x", DType.BF16, (-1,)), "cannot be built from features"),
    ],
)
def test_examples_that_the_model_cannot_take_are_refused(
    row: example_pb2.Example, info: TensorInfo, reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        built([row], info)


@pytest.mark.parametrize("message", [pb.Input(), pb.Input(example_list=pb.ExampleList())])
def test_a_request_without_examples_is_refused(message: pb.Input) -> None:
    with pytest.raises(InvalidRequestError, match=r"^Input is empty\.$"):
        examples(message)


def test_a_context_cannot_make_more_of_a_request_than_a_message_may_have() -> None:
    def inputs(dtype: DType, context: example_pb2.Example, bytes_max: int) -> list[InputTensor]:
        message = pb.Input(
            example_list_with_context=pb.ExampleListWithContext(examples=[example()] * 10, context=context)
        )
        infos = [TensorInfo("a", dtype, (-1,)), TensorInfo("b", dtype, (-1,))]
        return example_inputs(examples(message), infos, bytes_max)

    for dtype, context in (
        (DType.FP32, example(a=feature(1.0), b=feature(1.0))),
        (DType.BYTES, example(a=feature(b""), b=feature(b""))),
    ):
        assert len(inputs(dtype, context, 80)) == 2
        with pytest.raises(InvalidRequestError, match=r"Feature: b: .* larger than a message may be"):
            inputs(dtype, context, 79)
