"""Both clients against a server that refuses, hangs, breaks off and mixes up its answers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from predictd.client import (
    NO_RETRIES,
    Client,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    PredictdError,
    Prediction,
    RequestCancelledError,
    Retries,
    UnavailableError,
    UnsupportedError,
)
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures.prediction_service import FakeService, in_order, make_model, serving, streamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.prediction_service import Answers, Context, Requests, Trailers

FORK = """
import asyncio, os, sys
from predictd.client import AsyncClient

client = AsyncClient(sys.argv[1])

async def once(number):
    print((await client.predict("echo", {"x": [number]})).outputs["x"], flush=True)

asyncio.run(once(1))
if (pid := os.fork()) == 0:
    try:
        asyncio.run(once(0))
    except RuntimeError as error:
        print("RuntimeError:", str(error)[:23], flush=True)
    os._exit(0)
os.waitpid(pid, 0)
asyncio.run(once(2))
"""
QUICK = Retries(first_seconds=0.001)
BUSY = grpc.StatusCode.RESOURCE_EXHAUSTED
AWAY = grpc.StatusCode.UNAVAILABLE
SOON: Trailers = (("grpc-retry-pushback-ms", "1"),)
NEVER: Trailers = (("grpc-retry-pushback-ms", "-1"),)


def retry_info(milliseconds: int) -> Trailers:
    """A google.rpc.Status with a RetryInfo behind another detail, by hand: its package is not installed."""

    def field(number: int, data: bytes) -> bytes:
        return bytes((number << 3 | 2, len(data))) + data

    whole_seconds, rest = divmod(milliseconds, 1000)
    delay = field(1, Duration(seconds=whole_seconds, nanos=rest * 10**6).SerializeToString())
    other = AnyMessage(type_url="type.googleapis.com/google.rpc.DebugInfo", value=b"x")
    info = AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=delay)
    details = b"".join(field(3, detail.SerializeToString()) for detail in (other, info))
    return (("grpc-status-details-bin", b"\x08\x08" + field(2, b"busy") + details),)


def numbers(results: Any) -> list[Any]:
    return [each.outputs["x"].tolist()[0] if isinstance(each, Prediction) else type(each) for each in results]


def some(count: int) -> list[dict[str, Any]]:
    return [{"x": [number]} for number in range(count)]


@pytest.mark.parametrize("refusal", [(AWAY, ()), (BUSY, SOON), (BUSY, retry_info(1)), (AWAY, retry_info(1))])
def test_a_refusal_that_passes_is_not_seen(make_client: Any, refusal: Any) -> None:
    service = FakeService()
    service.refusals = [refusal] * 3
    with serving(service) as target, make_client(target, retries=QUICK) as client:
        assert numbers([client.predict("echo", {"x": [7]})]) == [7]
    assert len(service.requests) == 4
    assert len({request.SerializeToString() for request in service.requests}) == 1


@pytest.mark.parametrize(
    ("refusal", "error", "wait"),
    [
        ((BUSY, ()), OverloadedError, None),
        ((BUSY, NEVER), OverloadedError, float("inf")),
        ((AWAY, NEVER), UnavailableError, float("inf")),
        ((BUSY, retry_info(9000)), OverloadedError, 9.0),
        ((BUSY, (("grpc-status-details-bin", b"\x1a\xff"),)), OverloadedError, None),
        ((grpc.StatusCode.INTERNAL, SOON), InternalError, 0.001),
    ],
)
def test_what_is_not_to_be_repeated_is_not(
    make_client: Any, refusal: Any, error: type[PredictdError], wait: float | None
) -> None:
    service = FakeService()
    service.refusals = [refusal]
    with (
        serving(service) as target,
        make_client(target, retries=QUICK) as client,
        pytest.raises(error) as caught,
    ):
        client.predict("echo", {"x": [7]}, deadline=8)
    assert len(service.requests) == 1
    assert caught.value.retry_after_seconds == wait


def test_retries_end_with_their_number_and_can_be_turned_off(make_client: Any) -> None:
    service = FakeService()
    service.refusals = [(AWAY, ())] * 100
    with serving(service) as target:
        for retries, asked in ((Retries(attempts=3, first_seconds=0.001), 3), (NO_RETRIES, 1)):
            with make_client(target, retries=retries) as client, pytest.raises(UnavailableError):
                client.predict("echo", {"x": [7]})
            assert len(service.requests) == asked
            service.requests.clear()


def test_a_change_is_never_made_twice(make_client: Any) -> None:
    service = FakeService(make_model())
    service.load_error = AWAY
    with (
        serving(service) as target,
        make_client(target, retries=QUICK) as client,
        pytest.raises(UnavailableError),
    ):
        client.load_model("echo")
    assert len(service.commands) == 1


@pytest.mark.parametrize("unary", [False, True])
def test_many_answers_keep_the_order_of_their_inputs(make_client: Any, unary: bool) -> None:
    def in_pairs(requests: Requests, _: Context) -> Answers:
        for request in requests:
            held = streamed(request)
            yield from (streamed(next(requests)), held)

    with serving(FakeService(stream=in_pairs)) as target, make_client(target, connections=1) as client:
        assert numbers(client.predict_many("echo", some(200), unary=unary)) == list(range(200))
        assert numbers(client.predict_many("echo", [], unary=unary)) == []


def test_an_error_is_the_answer_of_its_request_alone(make_client: Any) -> None:
    inputs = [{"x": [0]}, {"x": [1j]}, {"x": [2]}]
    with serving(FakeService(stream=in_order)) as target, make_client(target) as client:
        with pytest.raises(TypeError, match="complex128"):
            list(client.predict_many("echo", inputs))
        bad = client.predict_many("fail-INVALID_ARGUMENT", some(3))
        assert numbers(bad) == [InvalidRequestError] * 3


def test_a_stream_that_is_cut_short_is_opened_again(make_client: Any) -> None:
    lengths = [5, 0, 7]

    def short(requests: Requests, context: Context) -> Answers:
        left = lengths.pop(0) if lengths else 1000
        for _, request in zip(range(left), requests, strict=False):
            yield streamed(request)
        if left == 7:
            context.abort(AWAY, "going away")

    with serving(FakeService(stream=short)) as target, make_client(target, retries=QUICK) as client:
        assert numbers(client.predict_many("echo", some(100), in_flight=8)) == list(range(100))
    assert not lengths


def test_a_refusal_inside_a_stream_is_repeated_if_it_says_when(make_client: Any) -> None:
    for hint, expected in ((1_000_000, 5), (None, OverloadedError)):
        refused: list[str] = []

        def busy(
            requests: Requests, _: Context, hint: int | None = hint, refused: list[str] = refused
        ) -> Answers:
            for request in requests:
                if request.inputs[0].data[0] == 5 and not refused:
                    refused.append(request.id)
                    error = v1.Error(code=BUSY.value[0], message="busy", retry_after_ns=hint)
                    yield v1.PredictStreamResponse(id=request.id, error=error)
                else:
                    yield streamed(request)

        with serving(FakeService(stream=busy)) as target, make_client(target) as client:
            wanted: list[Any] = list(range(10))
            wanted[5] = expected
            assert numbers(client.predict_many("echo", some(10))) == wanted


def test_an_answer_that_nothing_waits_for_spoils_the_stream(make_client: Any) -> None:
    def wrong(requests: Requests, _: Context) -> Answers:
        for request in requests:
            request.id = "stranger"
            yield streamed(request)

    with serving(FakeService(stream=wrong)) as target, make_client(target, connections=1) as client:
        answers = list(client.predict_many("echo", some(3), in_flight=3))
        assert {type(each) for each in answers} == {InternalError}
        assert "'stranger', which nothing waits for" in answers[0].message


def test_an_answer_that_is_none_is_an_internal_error(make_client: Any) -> None:
    bad = v1.PredictResponse(outputs=[v1.Tensor(name="y", dtype=v1.FP32, shape=[1], data=b"abc")])

    def broken(requests: Requests, _: Context) -> Answers:
        yield from (v1.PredictStreamResponse(id=request.id, response=bad) for request in requests)

    with serving(FakeService(stream=broken)) as target, make_client(target) as client:
        assert numbers(client.predict_many("echo", some(2))) == [InternalError] * 2


def test_slow_answers_miss_their_deadline_and_the_others_do_not(make_client: Any) -> None:
    def lazy(requests: Requests, _: Context) -> Answers:
        for request in requests:
            if request.inputs[0].data[0] != 1:
                yield streamed(request)

    with serving(FakeService(stream=lazy)) as target, make_client(target) as client:
        answers = client.predict_many("echo", some(4), deadline=2)
        assert numbers(answers) == [0, DeadlineExceededError, 2, 3]
        passed = client.predict_many("echo", some(2), deadline=-1.0)
        assert numbers(passed) == [DeadlineExceededError] * 2


@pytest.mark.parametrize("unary", [False, True])
def test_no_more_are_in_flight_than_asked_for(make_client: Any, unary: bool) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def count(change: int) -> None:
        with lock:
            now[0] += change
            most[0] = max(most[0], now[0])

    def inputs() -> Iterator[Any]:
        for one in some(60):
            count(1)
            yield one

    with serving(FakeService(stream=in_order)) as target, make_client(target) as client:
        if isinstance(client, Client):
            for answer in client.predict_many("echo", inputs(), in_flight=5, unary=unary):
                assert isinstance(answer, Prediction)
                count(-1)
            assert most[0] <= 6
        else:
            with pytest.raises(ValueError, match="at least 1"):
                client.predict_many("echo", inputs(), in_flight=0)
            with pytest.raises(TypeError, match="such as a list of dicts; predict takes one dict"):
                client.predict_many("echo", {"x": [1]})
            assert numbers(client.predict_many("echo", inputs(), in_flight=5)) == list(range(60))


def test_stopping_early_cancels_what_is_in_flight() -> None:
    service = FakeService()

    def endless(requests: Requests, context: Context) -> Answers:
        context.add_callback(service.cancelled.set)
        yield from map(streamed, requests)

    service.stream = endless
    with serving(service) as target, Client(target) as client:
        answers = client.predict_many("echo", some(10), in_flight=2)
        assert numbers([next(answers)]) == [0]
        answers.close()
        assert service.cancelled.wait(timeout=10)


def test_a_server_that_comes_back_is_found_again(make_client: Any) -> None:
    with serving(FakeService()) as target:
        pass
    port = int(target.rpartition(":")[2])
    patient = Retries(attempts=50, first_seconds=0.1, most_seconds=0.2, budget=100)
    with make_client(target, retries=patient) as client:
        # On a busy machine the time is up before the first try has failed.
        with pytest.raises((UnavailableError, DeadlineExceededError)):
            client.predict("echo", {"x": [0]}, deadline=0.2)
        with serving(FakeService(stream=in_order), port=port):
            assert numbers([client.predict("echo", {"x": [1]}, deadline=30)]) == [1]
            assert numbers(client.predict_many("echo", some(3))) == [0, 1, 2]


def test_a_loop_that_runs_does_not_disturb_the_blocking_client() -> None:
    async def main(target: str) -> None:
        with Client(target) as client:
            assert numbers([client.predict("echo", {"x": [1]})]) == [1]

    with serving(FakeService()) as target:
        asyncio.run(main(target))


def test_a_closed_client_says_so(make_client: Any) -> None:
    if make_client is Client:
        client = Client("127.0.0.1:1")
        client.close()
        with pytest.raises(ValueError, match="the client is closed"):
            client.predict("echo", {"x": [1]})


@pytest.mark.parametrize("unary", [False, True])
def test_closing_the_client_cancels_what_is_in_flight(unary: bool) -> None:
    def mute(requests: Requests, _: Context) -> Answers:
        yield from (streamed(request) for request in requests if request.model != "silent")

    service = FakeService(stream=mute)
    with serving(service) as target, Client(target, retries=NO_RETRIES) as client:
        threading.Timer(0.2, client.close).start()
        (answer,) = client.predict_many("silent", some(1), unary=unary)
        assert isinstance(answer, RequestCancelledError)
        assert answer.code is grpc.StatusCode.CANCELLED


def test_large_answers_are_views_of_what_arrived(make_client: Any) -> None:
    large = np.arange(2**16, dtype=np.float32).reshape(2, -1)
    inputs = {"a": large, "s": np.array(["x" * 70_000]), "b": large.T, "e": np.zeros((0, 3))}
    with serving(FakeService(stream=in_order)) as target, make_client(target) as client:
        for answer in (client.predict("echo", inputs), *client.predict_many("echo", [inputs])):
            assert list(answer.outputs) == ["a", "s", "b", "e"]
            assert answer.version == 3
            for name in "abe":
                np.testing.assert_array_equal(answer.outputs[name], inputs[name])
                assert not answer.outputs[name].flags.owndata
            assert answer.outputs["s"][0] == b"x" * 70_000


def test_after_a_fork_the_asyncio_client_says_what_it_cannot() -> None:
    """In a process of its own: this one's threads are of no use to a child."""
    with serving(FakeService()) as target:
        ran = subprocess.run(
            [sys.executable, "-c", FORK, target], capture_output=True, text=True, timeout=30, check=False
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[1]\nRuntimeError: this process was forked\n[2]\n"


def test_a_daemon_of_another_version_is_understood(make_client: Any) -> None:
    """A newer one sends fields that the client does not know, an older one lacks methods and fields."""
    later = b"\xba\x3e\x03new"  # Field 999, three bytes.

    def newer(request: v1.PredictRequest) -> v1.PredictResponse:
        plain = v1.PredictResponse(model=request.model, outputs=request.inputs)
        tensor = plain.outputs[0].SerializeToString() + later
        plain.ClearField("outputs")
        data = plain.SerializeToString() + b"\x22" + varint(len(tensor)) + tensor + later
        return v1.PredictResponse.FromString(data)

    for count in (3, 100_000):
        with serving(FakeService(answer=newer)) as target, make_client(target) as client:
            answer = client.predict("echo", {"x": np.arange(count)})
        np.testing.assert_array_equal(answer.outputs["x"], np.arange(count))
        assert (answer.version, answer.timing.batch_rows) == (0, 0)

    service = FakeService()
    service.load_error = grpc.StatusCode.UNIMPLEMENTED
    with serving(service) as target, make_client(target) as client, pytest.raises(UnsupportedError):
        client.load_model("m")


def varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded, number = encoded + bytes((number & 0x7F | 0x80,)), number >> 7
    return encoded + bytes((number,))
