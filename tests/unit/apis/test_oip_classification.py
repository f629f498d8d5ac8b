"""Triton's classification extension: the highest classes instead of an output."""

from __future__ import annotations

import asyncio
import dataclasses
import struct

import grpc
import numpy as np
import pytest

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis import oip, oip_classification
from predictd.server.frontend.apis.oip_classification import check_classification, classified
from predictd.server.frontend.inference import InferResponse, ModelInfo, OutputTensor, TensorInfo, VersionInfo
from tests.unit.apis.test_fake_core import ECHO_1, FakeCore, refusal, serving, unary

LABELS = ("cat", "", "dog")


def version(dtype: DType = DType.FP32, *, batches: bool = True, labels: tuple[str, ...] = ()) -> VersionInfo:
    return VersionInfo(1, "READY", outputs=(TensorInfo("y", dtype, (-1, 3), labels=labels),), batches=batches)


def response(array: object, dtype: DType = DType.FP32) -> InferResponse:
    values = np.asarray(array, dtype.numpy)
    other = OutputTensor("z", DType.INT8, (1,), b"\x05")
    return InferResponse("m", 1, [OutputTensor("y", dtype, values.shape, values.tobytes()), other], 0, 0, 1)


def texts(tensor: OutputTensor) -> list[str]:
    data, at, found = bytes(tensor.data), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return found


def classes(
    array: object, count: int, info: VersionInfo | None = None, dtype: DType = DType.FP32
) -> tuple[tuple[int, ...], list[str]]:
    answer = classified(response(array, dtype), info or version(dtype), [("y", count)])
    assert answer.outputs[0].dtype is DType.BYTES
    assert answer.outputs[1].data == b"\x05"
    return answer.outputs[0].shape, texts(answer.outputs[0])


def test_each_row_has_its_highest_classes_in_order() -> None:
    assert classes([[1, 5, 10, 4], [4, 3, 2, 1]], 2) == (
        (2, 2),
        ["10.000000:2", "5.000000:1", "4.000000:0", "3.000000:1"],
    )


def test_classes_have_their_labels_where_there_is_one() -> None:
    assert classes([[1, 5, 10, 4]], 9, version(labels=LABELS)) == (
        (1, 4),
        ["10.000000:2:dog", "5.000000:1", "4.000000:3", "1.000000:0:cat"],
    )


def test_a_model_that_does_not_batch_has_one_row() -> None:
    assert classes([[1, 2], [4, 3]], 2, version(batches=False)) == ((2,), ["4.000000:2", "3.000000:3"])


def test_inner_dimensions_are_one_row_and_a_number_a_row_is_one_class() -> None:
    assert classes([[[1, 2], [4, 3]]], 1) == ((1, 1), ["4.000000:2"])
    assert classes([1, 2], 3) == ((2, 1), ["1.000000:0", "2.000000:0"])


def test_of_equal_scores_the_first_comes_first_and_nan_is_the_lowest() -> None:
    nan, inf = float("nan"), float("inf")
    assert classes([[1, nan, 1, inf, -inf]], 5)[1] == [
        "inf:3",
        "1.000000:0",
        "1.000000:2",
        "nan:1",
        "-inf:4",
    ]


def test_no_rows_and_no_classes() -> None:
    assert classes(np.zeros((0, 3)), 2) == ((0, 2), [])
    assert classes(np.zeros((2, 0)), 2) == ((2, 0), [])


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (DType.INT8, [-128, 127], ["127:1", "-128:0"]),
        (DType.UINT64, [2**64 - 1, 1], ["18446744073709551615:0", "1:1"]),
        (DType.FP16, [0.5, 1.5], ["1.500000:1", "0.500000:0"]),
        (DType.FP64, [1e-9, 1e20], ["100000000000000000000.000000:1", "0.000000:0"]),
        (DType.BF16, [0x3FC0, 0xC000], ["1.500000:0", "-2.000000:1"]),
    ],
)
def test_values_are_written_as_c_prints_them(dtype: DType, values: list[float], expected: list[str]) -> None:
    assert classes([values], 2, dtype=dtype)[1] == expected


def test_only_numbers_have_classes() -> None:
    for dtype in (DType.BYTES, DType.BOOL):
        with pytest.raises(InvalidRequestError, match=f"^output 'y' is {dtype.name}: only numbers"):
            check_classification(version(dtype), [("y", 1)])
    check_classification(version(), [("y", 1), ("unknown", 1)])


def test_what_would_block_the_event_loop_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip_classification, "CLASSES_MAX", 3)
    with pytest.raises(InvalidRequestError, match="'y' has 4 classes; a classification may have 3"):
        classes([[1, 2], [3, 4]], 2)
    monkeypatch.setattr(oip_classification, "ELEMENTS_MAX", 3)
    with pytest.raises(InvalidRequestError, match="'y' has 4 elements; a classification may have 3"):
        classes([[1, 2], [3, 4]], 1)


def core() -> FakeCore:
    labelled = TensorInfo("x", DType.FP32, (-1, 3), labels=LABELS)
    fake = FakeCore()
    fake.known = (
        ModelInfo("echo", (dataclasses.replace(ECHO_1, outputs=(labelled, ECHO_1.outputs[1])),), 1),
    )
    return fake


def asked(name: str = "x", count: int = 2) -> bytes:
    request = pb.ModelInferRequest(model_name="echo", raw_input_contents=[struct.pack("<3f", 1, 2, 3)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    request.outputs.add(name=name).parameters["classification"].int64_param = count
    return request.SerializeToString()


def test_the_service_answers_with_classes_of_the_version_whose_labels_it_read() -> None:
    fake = core()

    async def scenario() -> bytes:
        async with serving(oip.handlers(fake)) as channel:
            return await unary(channel, f"/{oip.SERVICE}/ModelInfer")(asked())

    answer = pb.ModelInferResponse.FromString(asyncio.run(scenario()))
    (output,) = answer.outputs
    assert (output.datatype, list(output.shape)) == ("BYTES", [1, 2])
    tensor = OutputTensor("x", DType.BYTES, (1, 2), answer.raw_output_contents[0])
    assert texts(tensor) == ["3.000000:2:dog", "2.000000:1"]
    assert fake.seen[0].request.version == 1


@pytest.mark.parametrize(("name", "count"), [("x", 0), ("x", -1), ("s", 1)])
def test_the_service_refuses_what_cannot_be_classified_before_it_runs(name: str, count: int) -> None:
    fake = core()

    async def scenario() -> grpc.aio.AioRpcError:
        async with serving(oip.handlers(fake)) as channel:
            return await refusal(unary(channel, f"/{oip.SERVICE}/ModelInfer")(asked(name, count)))

    assert asyncio.run(scenario()).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert fake.seen == []
