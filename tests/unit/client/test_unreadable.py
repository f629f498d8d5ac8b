"""Both clients against a server whose answers are none, and what they make of arguments that make no sense."""

from __future__ import annotations

from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from predictd.client import DeadlineExceededError, InternalError, OverloadedError, Prediction
from predictd.client.channel import about
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures.prediction_service import FakeService, in_order, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.prediction_service import Answers, Context, Requests

ONE = {"x": [1]}
GARBAGE = {
    "short": b"\xff\xff\xff",
    "long": b"\xff" * 100_000,
    "no text": b"\x0a\x02\xff\xfe",
    "cut off": b"\x22\x7f",
}


@contextmanager
def answering(garbage: bytes) -> Iterator[str]:
    """A server that answers with these bytes, and streams them."""

    def stream(requests: Iterator[bytes], _: Context) -> Iterator[bytes]:
        yield from (garbage for _ in requests)

    handlers: dict[str, Any] = {
        "Predict": grpc.unary_unary_rpc_method_handler(lambda _, __: garbage),
        "PredictStream": grpc.stream_stream_rpc_method_handler(stream),
        "ListModels": grpc.unary_unary_rpc_method_handler(lambda _, __: garbage),
    }
    with futures.ThreadPoolExecutor(max_workers=8) as pool:
        server = grpc.server(pool)
        service = grpc.method_handlers_generic_handler("predictd.v1.PredictionService", handlers)
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(grace=None).wait()


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_bytes_that_are_no_answer_are_an_internal_error_at_once(make_client: Any, garbage: bytes) -> None:
    with answering(garbage) as target, make_client(target, connections=1) as client:
        for ask in (lambda: client.predict("m", ONE), client.models):
            with pytest.raises(InternalError, match="the daemon's answer cannot be read"):
                ask()
        for unary in (False, True):
            answers = list(client.predict_many("m", [ONE] * 3, unary=unary))
            assert [type(each) for each in answers] == [InternalError] * 3


@pytest.mark.parametrize(
    "tensor",
    [
        v1.Tensor(name="y", dtype=v1.FP32, shape=[2**62, 4, 0]),
        v1.Tensor(name="y", dtype=v1.FP32, shape=[1] * 70, data=b"abcd"),
        v1.Tensor(name="y", dtype=v1.BYTES, shape=[0, 2**62, 4]),
        v1.Tensor(name="y", dtype=v1.BYTES, shape=[1] * 70, data=bytes(4)),
    ],
    ids=["huge", "many", "huge of strings", "many of strings"],
)
def test_a_shape_that_no_array_has_is_an_internal_error(make_client: Any, tensor: v1.Tensor) -> None:
    answer = v1.PredictResponse(outputs=[tensor])

    def stream(requests: Requests, _: Context) -> Answers:
        yield from (v1.PredictStreamResponse(id=request.id, response=answer) for request in requests)

    service = FakeService(answer=lambda _: answer, stream=stream)
    with serving(service) as target, make_client(target) as client:
        with pytest.raises(InternalError, match="output 'y' came with a shape that no array has"):
            client.predict("m", ONE)
        (many,) = client.predict_many("m", [ONE])
        assert isinstance(many, InternalError)


@pytest.mark.parametrize("said", [{}, {"error": v1.Error()}, {"error": v1.Error(message="why")}])
def test_a_streams_answer_that_says_nothing_is_an_internal_error(
    make_client: Any, said: dict[str, Any]
) -> None:
    def stream(requests: Requests, _: Context) -> Answers:
        yield from (v1.PredictStreamResponse(id=request.id, **said) for request in requests)

    with serving(FakeService(stream=stream)) as target, make_client(target) as client:
        (answer,) = client.predict_many("m", [ONE])
    assert isinstance(answer, InternalError)
    assert answer.message == "the daemon's answer cannot be read: an error without a status"


@pytest.mark.parametrize("hint", ["9" * 5000, "99999999999", "1e3", "soon", ""])
def test_a_hint_that_is_no_number_of_milliseconds_means_never(make_client: Any, hint: str) -> None:
    service = FakeService()
    service.refusals = [(grpc.StatusCode.RESOURCE_EXHAUSTED, (("grpc-retry-pushback-ms", hint),))]
    with (
        serving(service) as target,
        make_client(target) as client,
        pytest.raises(OverloadedError) as caught,
    ):
        client.predict("m", ONE)
    assert caught.value.retry_after_seconds == float("inf")
    assert len(service.requests) == 1


@pytest.mark.parametrize("deadline", [1e9, 1e12, 1e300, np.float32(100)])
def test_a_deadline_may_be_as_far_away_as_one_likes(make_client: Any, deadline: float) -> None:
    with serving(FakeService(stream=in_order)) as target, make_client(target) as client:
        assert isinstance(client.predict("m", ONE, deadline=deadline), Prediction)
        for unary in (False, True):
            (answer,) = client.predict_many("m", [ONE], deadline=deadline, unary=unary)
            assert isinstance(answer, Prediction)


@pytest.mark.parametrize("deadline", [0, 0.0, -1, -1e300])
def test_nothing_is_sent_that_is_too_late_already(make_client: Any, deadline: float) -> None:
    service = FakeService(stream=in_order)
    words = f"a deadline of {deadline:.3g} s has passed"
    with serving(service) as target, make_client(target) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            client.predict("m", ONE, deadline=deadline)
        assert caught.value.message == words
        for unary in (False, True):
            (answer,) = client.predict_many("m", [ONE], deadline=deadline, unary=unary)
            assert isinstance(answer, DeadlineExceededError)
    assert not service.requests


def test_a_string_that_is_no_text_is_refused_by_name(make_client: Any) -> None:
    with make_client("127.0.0.1:1") as client:
        for value in ("a\udc80", np.array(["a\udc80"]), np.array(["a\udc80"], dtype=object)):
            with pytest.raises(
                ValueError, match=r"^input 'x': a string is no text: .*surrogates not allowed"
            ):
                client.predict("m", {"x": value})


def test_a_name_that_headers_have_no_room_for_is_in_the_request_alone(make_client: Any) -> None:
    assert about("m" * 1024, 0)
    with serving(FakeService()) as target, make_client(target) as client:
        assert client.predict("m" * 10_000, ONE).model == "m" * 10_000
