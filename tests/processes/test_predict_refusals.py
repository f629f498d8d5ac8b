"""predictd.v1 against a real daemon: what is refused and how, and what a batch mate does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import grpc
import numpy as np
import pytest

from predictd.client import (
    NO_RETRIES,
    Client,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    Prediction,
)
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures.daemon import Daemon
from tests.fixtures.faulty_engine import ENGINE_ERROR, RUNTIME_ERROR
from tests.fixtures.predict_daemon import (
    MAX_MESSAGE_MIB,
    MAX_REQUEST_ROWS,
    MIB,
    assert_answers,
    assert_idle,
    one,
    rows,
    serving,
    together,
)

PREDICT = "/predictd.v1.PredictionService/Predict"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("predict")) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        yield client


# What is refused ----------------------------------------------------------------------------------------


def tensor(
    name: str, shape: Sequence[int], dtype: v1.DataType = v1.FP32, data: bytes | None = None
) -> v1.Tensor:
    """An input; without data as many zeros as its shape needs of FP32."""
    if data is None:
        data = bytes(4 * int(np.prod(shape)))
    return v1.Tensor(name=name, dtype=dtype, shape=shape, data=data)


GOOD = tensor("x", [1, 4])
FAR = 2**62
REFUSED: dict[str, tuple[v1.PredictRequest, grpc.StatusCode, str]] = {
    "no model": (
        v1.PredictRequest(inputs=[GOOD]),
        *(grpc.StatusCode.INVALID_ARGUMENT, "the request names no model"),
    ),
    "unknown model": (
        v1.PredictRequest(model="nobody", inputs=[GOOD]),
        *(grpc.StatusCode.NOT_FOUND, "model 'nobody' is not known"),
    ),
    "unknown version": (
        v1.PredictRequest(model="rows", version=2, inputs=[GOOD]),
        *(grpc.StatusCode.NOT_FOUND, "model 'rows' has no version 2 (versions: 1)"),
    ),
    "no version": (
        v1.PredictRequest(model="rows", version=-1, inputs=[GOOD]),
        *(grpc.StatusCode.NOT_FOUND, "model 'rows' has no version -1 (versions: 1)"),
    ),
    "unknown label": (
        v1.PredictRequest(model="rows", label="canary", inputs=[GOOD]),
        *(grpc.StatusCode.NOT_FOUND, "model 'rows' has no label 'canary' (labels: none)"),
    ),
    "empty label": (
        v1.PredictRequest(model="rows", label="", inputs=[GOOD]),
        *(grpc.StatusCode.NOT_FOUND, "model 'rows' has no label '' (labels: none)"),
    ),
    "missing": (
        v1.PredictRequest(model="rows"),
        *(grpc.StatusCode.INVALID_ARGUMENT, "input 'x' of model 'rows' is missing; expected FP32[-1, 4]"),
    ),
    "unknown input": (
        v1.PredictRequest(model="rows", inputs=[GOOD, tensor("z", [1])]),
        *(grpc.StatusCode.INVALID_ARGUMENT, "unexpected input 'z' for model 'rows'; it takes 'x'"),
    ),
    "twice": (
        v1.PredictRequest(model="rows", inputs=[GOOD, GOOD]),
        *(grpc.StatusCode.INVALID_ARGUMENT, "input 'x' of model 'rows' is given twice"),
    ),
    "dtype": (
        v1.PredictRequest(model="rows", inputs=[tensor("x", [1, 4], v1.INT32)]),
        *(grpc.StatusCode.INVALID_ARGUMENT, "input 'x' of model 'rows' has type INT32; expected FP32"),
    ),
    "no dtype": (
        v1.PredictRequest(model="rows", inputs=[tensor("x", [1, 4], v1.DATA_TYPE_UNSPECIFIED)]),
        *(grpc.StatusCode.INVALID_ARGUMENT, "input 'x' has an unknown dtype: 0"),
    ),
    "shape": (
        v1.PredictRequest(model="rows", inputs=[tensor("x", [1, 5])]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "input 'x' of model 'rows' has shape [1, 5]; expected [-1, 4] (-1: any size)",
    ),
    "rank": (
        v1.PredictRequest(model="rows", inputs=[tensor("x", [1, 4, 1])]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "input 'x' of model 'rows' has shape [1, 4, 1]; expected [-1, 4] (-1: any size)",
    ),
    "rank 0": (
        v1.PredictRequest(model="rows", inputs=[tensor("x", [])]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "input 'x' of model 'rows' has shape []; expected [-1, 4] (-1: any size)",
    ),
    "negative": (
        v1.PredictRequest(model="cube", inputs=[tensor("x", [1, -1, -4], data=bytes(16))]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "input 'x' of model 'cube' has shape [1, -1, -4]; expected [-1, -1, -1] (-1: any size)",
    ),
    "negative rows": (
        v1.PredictRequest(model="rows", inputs=[tensor("x", [-1, 4], data=b"")]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "input 'x' of model 'rows' has shape [-1, 4]; expected [-1, 4] (-1: any size)",
    ),
    "beyond all numbers": (
        v1.PredictRequest(model="cube", inputs=[tensor("x", [1, FAR, FAR], data=b"")]),
        grpc.StatusCode.INVALID_ARGUMENT,
        f"input 'x' of model 'cube' has shape [1, {FAR}, {FAR}]; its dimensions may multiply to {2**40}",
    ),
    "beyond all numbers and empty": (
        v1.PredictRequest(model="cube", inputs=[tensor("x", [0, FAR, FAR], data=b"")]),
        grpc.StatusCode.INVALID_ARGUMENT,
        f"input 'x' of model 'cube' has shape [0, {FAR}, {FAR}]; its dimensions may multiply to {2**40}",
    ),
    "bytes": (
        v1.PredictRequest(model="rows", inputs=[tensor("x", [1, 4], data=bytes(15))]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "input 'x' of model 'rows' carries 15 bytes; FP32[1, 4] takes 16",
    ),
    "rows differ": (
        v1.PredictRequest(
            model="add_sub",
            inputs=[tensor("INPUT0", [1, 16], v1.INT32), tensor("INPUT1", [2, 16], v1.INT32)],
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "the inputs of model 'add_sub' have different rows: 'INPUT0' has 1, 'INPUT1' has 2",
    ),
    "too many rows": (
        v1.PredictRequest(model="rows", inputs=[tensor("x", [MAX_REQUEST_ROWS + 1, 4])]),
        grpc.StatusCode.INVALID_ARGUMENT,
        (
            f"input 'x' of model 'rows' has {MAX_REQUEST_ROWS + 1} rows; "
            f"a request may have {MAX_REQUEST_ROWS} (max_request_rows)"
        ),
    ),
    "unknown output": (
        v1.PredictRequest(model="rows", inputs=[GOOD], outputs=["z"]),
        *(grpc.StatusCode.INVALID_ARGUMENT, "unknown output 'z' of model 'rows'; it gives 'y'"),
    ),
    "output twice": (
        v1.PredictRequest(model="rows", inputs=[GOOD], outputs=["y", "y"]),
        *(grpc.StatusCode.INVALID_ARGUMENT, "output 'y' of model 'rows' is asked for twice"),
    ),
    "strings": (
        v1.PredictRequest(model="text", inputs=[tensor("x", [1, 2], v1.BYTES, b"\x01\0\0\0a")]),
        grpc.StatusCode.INVALID_ARGUMENT,
        "input 'x' of model 'text' is not 2 length-prefixed elements in 5 bytes; shape [1, 2]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_refused_with_its_reason(daemon: Daemon, case: str) -> None:
    request, code, message = REFUSED[case]
    assert refusal(daemon, request.SerializeToString()) == (code, message)
    assert_answers(daemon)


def test_bytes_that_are_no_message_are_refused(daemon: Daemon) -> None:
    for garbage in (b"\xff", b"\x00" * 10, b"GET / HTTP/1.1\r\n", GOOD.SerializeToString()[:-1]):
        code, message = refusal(daemon, garbage)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert message == "the request is not a valid predictd.v1.PredictRequest message"
    assert_answers(daemon)


def test_an_unknown_method_is_unimplemented(daemon: Daemon) -> None:
    for method in ("/predictd.v1.PredictionService/Explain", "/predictd.v2.PredictionService/Predict"):
        code, _ = refusal(daemon, b"", method)
        assert code is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_over_the_limit_is_refused(daemon: Daemon, client: Client) -> None:
    with pytest.raises(OverloadedError, match="larger than max"):
        client.predict("anything", {"x": np.zeros((1, MAX_MESSAGE_MIB * MIB // 4), np.float32)})
    assert_answers(daemon)


def test_an_answer_over_the_limit_is_refused(daemon: Daemon, client: Client) -> None:
    assert client.predict("widen", {"x": rows(1).T}).outputs["y"].shape == (4, MIB // 4)
    with pytest.raises(InvalidRequestError, match=r"the answer.* has \d+ bytes .*\(max_message_size\)"):
        client.predict("widen", {"x": np.zeros((MAX_MESSAGE_MIB, 1), np.float32)})
    assert_answers(daemon)


def refusal(daemon: Daemon, data: bytes, method: str = PREDICT) -> tuple[grpc.StatusCode, str]:
    """The status that the bytes of a request meet."""
    with grpc.insecure_channel(daemon.grpc) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=20)
    return caught.value.code(), caught.value.details() or ""


# What a batch mate does ---------------------------------------------------------------------------------


def test_an_input_that_the_model_cannot_run_on_fails_alone(daemon: Daemon) -> None:
    before = daemon.metric("predictd_runs_total", model="gather")
    first, bad, second, third = together(daemon, "gather", [np.array([n]) for n in (0, 7, 2, 1)])
    assert isinstance(bad, InvalidRequestError)
    assert "indices element out of data bounds, idx=7" in bad.message
    for n, answer in ((0, first), (2, second), (1, third)):
        assert isinstance(answer, Prediction)
        np.testing.assert_array_equal(answer.outputs["y"], [[2 * n, 2 * n + 1]])
    # The batch of four failed; then each had a run of its own.
    daemon.wait_metric("predictd_runs_total", before + 3, model="gather")


@pytest.mark.parametrize("value", [ENGINE_ERROR, RUNTIME_ERROR], ids=["EngineError", "any other exception"])
def test_a_failure_of_the_engine_is_internal_and_hits_one(daemon: Daemon, value: float) -> None:
    first, second, third, bad = together(daemon, "faulty", [one(n) for n in (1.0, 2.0, 3.0, value)])
    assert isinstance(bad, InternalError)
    told = re.fullmatch(r"model 'faulty' failed: the engine failed \(error ([0-9a-f]{8})\)", bad.message)
    assert told is not None, bad.message
    daemon.wait_until(lambda: f"error {told[1]}: the engine failed" in daemon.output(), 10, "explained")
    for n, answer in ((1, first), (2, second), (3, third)):
        assert isinstance(answer, Prediction)
        assert answer.outputs["y"] == n


def test_all_may_fail_in_one_batch(daemon: Daemon) -> None:
    answers = together(daemon, "faulty", [one(ENGINE_ERROR)] * 4)
    assert [type(answer) for answer in answers] == [InternalError] * 4
    assert_idle(daemon)
