"""Every dtype through a real daemon, in every form that a protocol has for it: what goes in comes out, bit for bit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from predictd.client import NO_RETRIES, AsyncClient, BFloat16, Client, Prediction
from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running

Array = npt.NDArray[Any]

WIDTH = 4
DTYPES = tuple(DType)
NUMBERS = tuple(dtype for dtype in DType if dtype is not DType.BYTES)
TYPED = {
    DType.BOOL: "bool_contents",
    DType.INT8: "int_contents",
    DType.INT16: "int_contents",
    DType.INT32: "int_contents",
    DType.INT64: "int64_contents",
    DType.UINT8: "uint_contents",
    DType.UINT16: "uint_contents",
    DType.UINT32: "uint_contents",
    DType.UINT64: "uint64_contents",
    DType.FP32: "fp32_contents",
    DType.FP64: "fp64_contents",
    DType.BYTES: "bytes_contents",
}
SMALL_INTEGERS = (DType.INT8, DType.INT16, DType.UINT8, DType.UINT16)
TEXTS = [b"", b"a", "häßlich".encode(), b"with\0NUL", b"\n\r\t", "𝄞".encode(), b"x" * 5000, b" "]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Serves `y` = `x` [batch, 4] for each dtype, under the dtype's name."""
    root = tmp_path_factory.mktemp("dtypes")
    repository = root / "models"
    repository.mkdir()
    for dtype in DTYPES:
        models.identity(repository / f"{dtype.name}.onnx", dtype, ("batch", WIDTH))
    with running(repository, "--max-batch-size", "8", folder=root / "run") as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        yield client


@pytest.fixture
def channel(daemon: Daemon) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(daemon.grpc) as channel:
        yield channel


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("rows", [0, 1, 3, 20])
def test_our_client_gets_its_tensor_back(client: Client, dtype: DType, rows: int) -> None:
    sent = values(dtype, rows)
    prediction = client.predict(dtype.name, {"x": BFloat16(sent) if dtype is DType.BF16 else sent})
    assert prediction.dtypes == {"y": dtype.name}
    assert_same(prediction.outputs["y"], sent, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_the_raw_bytes_of_predictd_v1_come_back(channel: grpc.Channel, dtype: DType) -> None:
    data = encode(values(dtype, 3), dtype)
    request = v1.PredictRequest(model=dtype.name)
    request.inputs.add(name="x", dtype=dtype.value, shape=(3, WIDTH), data=data)
    call = channel.unary_unary(
        "/predictd.v1.PredictionService/Predict",
        request_serializer=v1.PredictRequest.SerializeToString,
        response_deserializer=v1.PredictResponse.FromString,
    )
    (output,) = call(request, timeout=20).outputs
    assert (output.name, output.dtype, list(output.shape), output.data) == (
        *("y", dtype.value, [3, WIDTH]),
        data,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_the_raw_contents_of_the_open_protocol_come_back(channel: grpc.Channel, dtype: DType) -> None:
    data = encode(values(dtype, 3), dtype)
    request = oip_request(dtype, 3)
    request.raw_input_contents.append(data)
    assert_answered(infer(channel, request), dtype, 3, data)


@pytest.mark.parametrize("dtype", TYPED, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("rows", [0, 3])
def test_typed_contents_are_answered_raw(channel: grpc.Channel, dtype: DType, rows: int) -> None:
    sent = values(dtype, rows)
    assert_answered(infer(channel, typed_request(dtype, sent)), dtype, rows, encode(sent, dtype))


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16], ids=lambda dtype: dtype.name)
def test_typed_contents_of_half_floats_are_refused(channel: grpc.Channel, dtype: DType) -> None:
    request = oip_request(dtype, 1)
    request.inputs[0].contents.fp32_contents.extend([1.0] * WIDTH)
    assert (
        refusal(channel, request) == f"input 'x': {dtype.name} has no typed contents, send raw_input_contents"
    )


@pytest.mark.parametrize("dtype", SMALL_INTEGERS, ids=lambda dtype: dtype.name)
def test_a_number_that_does_not_fit_its_dtype_is_refused(channel: grpc.Channel, dtype: DType) -> None:
    request = oip_request(dtype, 1)
    too_large = int(np.iinfo(dtype.numpy).max) + 1
    getattr(request.inputs[0].contents, TYPED[dtype]).extend([0, too_large, 0, 0])
    assert refusal(channel, request) == f"input 'x': {too_large} is not an {dtype.name}"


@pytest.mark.parametrize("dtype", TYPED, ids=lambda dtype: dtype.name)
def test_contents_in_the_field_of_another_dtype_are_refused(channel: grpc.Channel, dtype: DType) -> None:
    request = oip_request(dtype, 1)
    wrong = "fp64_contents" if dtype is not DType.FP64 else "fp32_contents"
    getattr(request.inputs[0].contents, wrong).extend([1.0] * WIDTH)
    assert refusal(channel, request) == f"input 'x': {dtype.name} is sent in {TYPED[dtype]}, not in {wrong}"


@pytest.mark.parametrize("dtype", TYPED, ids=lambda dtype: dtype.name)
def test_too_few_typed_elements_are_refused(channel: grpc.Channel, dtype: DType) -> None:
    request = typed_request(dtype, values(dtype, 1))
    request.inputs[0].shape[0] = 2
    assert refusal(channel, request) == (
        f"input 'x': shape [2, {WIDTH}] does not fit {WIDTH} elements of {TYPED[dtype]}"
    )


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
def test_a_wrong_number_of_bytes_is_refused(channel: grpc.Channel, dtype: DType) -> None:
    expected_bytes = WIDTH * dtype.itemsize
    for given_bytes in (0, expected_bytes - 1, expected_bytes + 1):
        request = oip_request(dtype, 1)
        request.raw_input_contents.append(bytes(given_bytes))
        assert refusal(channel, request) == (
            f"input 'x' of model '{dtype.name}' carries {given_bytes} bytes; "
            f"{dtype.name}[1, {WIDTH}] takes {expected_bytes}"
        )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 3,
        b"\x00" * (4 * WIDTH - 1),
        b"\x00" * (4 * WIDTH + 1),
        b"\x00" * (4 * WIDTH + 4),
        b"\x00" * (4 * WIDTH - 4) + b"\x01\x00\x00\x00",
        b"\xff\xff\xff\xff" + b"\x00" * 4 * (WIDTH - 1),
    ],
    ids=["nothing", "half a length", "cut", "one byte more", "one more", "no content", "4 GiB"],
)
def test_malformed_strings_are_refused(channel: grpc.Channel, data: bytes) -> None:
    request = oip_request(DType.BYTES, 1)
    request.raw_input_contents.append(data)
    assert refusal(channel, request) == (
        f"input 'x' of model 'BYTES' is not {WIDTH} length-prefixed elements in {len(data)} bytes; "
        f"shape [1, {WIDTH}]"
    )


def test_text_that_is_not_utf8_is_refused_and_names_the_element(channel: grpc.Channel) -> None:
    request = typed_request(DType.BYTES, np.array([[b"a", b"b", b"\xff\xfe", b"d"]], object))
    message = refusal(channel, request)
    assert message == "model 'BYTES' cannot run on these inputs: input 'x': element 2 is not UTF-8"


def test_all_dtypes_at_once_are_kept_apart(daemon: Daemon) -> None:
    """Every caller has content of its own and gets it back, whatever it shares a batch with."""
    numbers = [dtype for dtype in DTYPES if dtype is not DType.BOOL]
    wanted = [(dtype, own_values(dtype, caller)) for caller in range(20) for dtype in numbers]

    async def scenario() -> list[Prediction]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            calls = [
                client.predict(dtype.name, {"x": BFloat16(sent) if dtype is DType.BF16 else sent})
                for dtype, sent in wanted
            ]
            return await asyncio.gather(*calls)

    for (dtype, sent), prediction in zip(wanted, asyncio.run(scenario()), strict=True):
        assert_same(prediction.outputs["y"], sent, dtype)


def values(dtype: DType, rows: int) -> Array:
    """Content with the extremes of its dtype in every row."""
    if dtype is DType.BYTES:
        return np.array([TEXTS[at % len(TEXTS)] for at in range(rows * WIDTH)], object).reshape(rows, WIDTH)
    if dtype is DType.BOOL:
        return np.resize(np.array([True, False, False]), (rows, WIDTH))
    if dtype is DType.BF16:
        # One, the negative zero, a NaN with a payload, the least denormal number.
        return np.resize(np.array([0x3F80, 0x8000, 0x7FC5, 0x0001], np.uint16), (rows, WIDTH))
    if dtype in (DType.FP16, DType.FP32, DType.FP64):
        floats = np.finfo(dtype.numpy)
        return np.resize(
            np.array([floats.max, -0.0, np.nan, floats.smallest_subnormal], dtype.numpy), (rows, WIDTH)
        )
    integers = np.iinfo(dtype.numpy)
    return np.resize(np.array([integers.min, integers.max, 1, 0, 7], dtype.numpy), (rows, WIDTH))


def own_values(dtype: DType, caller: int) -> Array:
    """Content that only this caller has, one to three rows."""
    shape = (1 + caller % 3, WIDTH)
    if dtype is DType.BYTES:
        return np.full(shape, b"caller %d " % caller * caller, object)
    return np.full(shape, caller + 1, dtype.numpy)


def encode(array: Array, dtype: DType) -> bytes:
    if dtype is DType.BYTES:
        return b"".join(len(text).to_bytes(4, "little") + text for text in array.flat)
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def assert_same(given: Array, sent: Array, dtype: DType) -> None:
    assert given.shape == sent.shape
    if dtype is DType.BYTES:
        assert given.tolist() == sent.tolist()
    else:
        assert (given.dtype, given.tobytes()) == (dtype.numpy, sent.tobytes())


def oip_request(dtype: DType, rows: int) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=dtype.name, id="7")
    request.inputs.add(name="x", datatype=dtype.name, shape=(rows, WIDTH))
    return request


def typed_request(dtype: DType, array: Array) -> oip.ModelInferRequest:
    request = oip_request(dtype, len(array))
    getattr(request.inputs[0].contents, TYPED[dtype]).extend(array.ravel().tolist())
    return request


def infer(channel: grpc.Channel, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelInferResponse.FromString,
    )
    return call(request, timeout=20)


def refusal(channel: grpc.Channel, request: oip.ModelInferRequest) -> str:
    """The message of the INVALID_ARGUMENT that a request meets."""
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.details() or ""


def assert_answered(answer: oip.ModelInferResponse, dtype: DType, rows: int, data: bytes) -> None:
    assert (answer.model_name, answer.model_version, answer.id) == (dtype.name, "1", "7")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", dtype.name, [rows, WIDTH])
    assert not output.HasField("contents")
    assert list(answer.raw_output_contents) == [data]
