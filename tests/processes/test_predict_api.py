"""predictd.v1 against a real daemon: what is asked at the edges, and who does not wait for the answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from predictd.client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    DeadlineExceededError,
    NotFoundError,
    OverloadedError,
    Prediction,
    UnavailableError,
)
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures.daemon import Daemon
from tests.fixtures.faulty_engine import BLOCK
from tests.fixtures.predict_daemon import (
    IDLE_SECONDS,
    MAX_REQUEST_ROWS,
    MIB,
    assert_answers,
    assert_idle,
    one,
    rows,
    serving,
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


# What is answered ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 32, 33, 100, MAX_REQUEST_ROWS])
def test_a_request_of_any_size_is_answered_whole(client: Client, count: int) -> None:
    np.testing.assert_array_equal(client.predict("rows", {"x": rows(count)}).outputs["y"], rows(count))


def test_no_rows_give_no_rows(client: Client) -> None:
    none = client.predict("rows", {"x": rows(0)})
    assert (none.outputs["y"].shape, none.timing.batch_rows) == ((0, 4), 0)
    assert client.predict("text", {"x": np.empty((0, 2), object)}).outputs["y"].shape == (0, 2)
    assert client.predict("digits", {"x": np.empty((0, 2), np.int64)}).outputs["y"].shape == (0, 2)
    assert client.predict("anything", {"x": np.empty((3, 0), np.float32)}).outputs["y"].shape == (3, 0)


def test_empty_requests_share_a_batch_with_others(daemon: Daemon) -> None:
    texts = [np.array([[b"%d" % n, b""]] * (n % 3), object).reshape(n % 3, 2) for n in range(60)]

    async def scenario() -> list[Prediction]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            return await asyncio.gather(*(client.predict("text", {"x": text}) for text in texts))

    for text, prediction in zip(texts, asyncio.run(scenario()), strict=True):
        assert prediction.outputs["y"].shape == text.shape
        assert prediction.outputs["y"].tolist() == text.tolist()


def test_a_scalar_has_rank_zero(client: Client) -> None:
    prediction = client.predict("scalar", {"x": np.float32(41)})
    assert prediction.outputs["y"].shape == ()
    assert prediction.outputs["y"] == 42
    assert prediction.timing.batch_rows == 0
    assert client.predict("reduce_all", {"x": rows(3)}).outputs["y"] == rows(3).sum()


def test_the_shape_of_an_output_may_follow_its_data(client: Client) -> None:
    for x in (rows(3), np.zeros((2, 4), np.float32), rows(0), np.eye(4, dtype=np.float32)):
        np.testing.assert_array_equal(client.predict("nonzero", {"x": x}).outputs["y"], np.argwhere(x))


def test_a_model_that_does_not_batch_answers_each_for_itself(daemon: Daemon) -> None:
    async def scenario() -> list[Prediction]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            return await asyncio.gather(*(client.predict("fixed", {"x": rows(2, n)}) for n in range(50)))

    for n, prediction in enumerate(asyncio.run(scenario())):
        np.testing.assert_array_equal(prediction.outputs["y"], -rows(2, n))
        assert prediction.timing.batch_rows == 0


def test_an_optional_input_may_be_left_out(client: Client) -> None:
    np.testing.assert_array_equal(client.predict("optional", {"x": rows(1)}).outputs["y"], rows(1) + 10)
    given = client.predict("optional", {"offset": np.array([1], np.float32), "x": rows(1)})
    np.testing.assert_array_equal(given.outputs["y"], rows(1) + 1)


def test_outputs_come_in_the_order_asked_for(client: Client) -> None:
    first, second = np.full((2, 16), 5, np.int32), np.full((2, 16), 3, np.int32)
    inputs = {"INPUT1": second, "INPUT0": first}
    for wanted in ((), ("OUTPUT0", "OUTPUT1"), ("OUTPUT1", "OUTPUT0"), ("OUTPUT1",)):
        answered = client.predict("add_sub", inputs, outputs=wanted).outputs
        assert tuple(answered) == (wanted or ("OUTPUT0", "OUTPUT1"))
        expected = {"OUTPUT0": first + second, "OUTPUT1": first - second}
        for name, array in answered.items():
            np.testing.assert_array_equal(array, expected[name])


def test_the_highest_version_is_served(client: Client) -> None:
    for version in (None, 3):
        prediction = client.predict("versions", {"x": rows(1)}, version=version)
        assert (prediction.model, prediction.version) == ("versions", 3)
        np.testing.assert_array_equal(prediction.outputs["y"], rows(1) * 3)


def test_two_shapes_at_once_never_mix(daemon: Daemon) -> None:
    """They come interleaved, and there is time to merge them: a batch has one shape only."""
    arrays = [np.full((1, 3 + n % 2), n, np.float32) for n in range(64)]

    async def scenario() -> list[Prediction]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            return await asyncio.gather(*(client.predict("sums", {"x": array}) for array in arrays))

    answers = asyncio.run(scenario())
    for array, prediction in zip(arrays, answers, strict=True):
        np.testing.assert_array_equal(prediction.outputs["y"], array.sum(axis=1))
    merged = [prediction.timing.batch_rows for prediction in answers]
    assert 1 < max(merged) <= 4


def test_many_shapes_at_once_are_kept_apart(daemon: Daemon) -> None:
    arrays = [np.full((1 + n % 3, n % 7), n, np.float32) for n in range(400)]

    async def scenario() -> list[Prediction]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            return await asyncio.gather(*(client.predict("anything", {"x": array}) for array in arrays))

    for array, prediction in zip(arrays, asyncio.run(scenario()), strict=True):
        np.testing.assert_array_equal(prediction.outputs["y"], array)


def test_strings_of_any_length_at_once_are_kept_apart(daemon: Daemon) -> None:
    texts = [[[b"%d" % n * (n % 50), b"\0" * (n % 5)]] * (1 + n % 4) for n in range(300)]

    async def scenario() -> list[Prediction]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            return await asyncio.gather(
                *(client.predict("text", {"x": np.array(text, object)}) for text in texts)
            )

    for text, prediction in zip(texts, asyncio.run(scenario()), strict=True):
        assert prediction.outputs["y"].tolist() == text


def test_a_huge_request_and_its_huge_answer(client: Client) -> None:
    x = np.arange(64 * MIB // 4, dtype=np.float32).reshape(4, -1)
    assert np.array_equal(client.predict("anything", {"x": x}).outputs["y"], x)


def test_a_model_that_failed_to_load_is_listed_with_the_reason(client: Client) -> None:
    (version,) = client.model("broken").versions
    assert (version.state, client.model("broken").default_version) == ("FAILED", 0)
    assert version.reason
    with pytest.raises(UnavailableError, match="version 1 of model 'broken' failed to load"):
        client.predict("broken", {})
    assert {model.name for model in client.models()} >= {"rows", "broken", "faulty"}
    with pytest.raises(NotFoundError, match="model 'nobody' is not known"):
        client.model("nobody")


# Who does not wait --------------------------------------------------------------------------------------


def test_a_request_that_is_cancelled_while_queued_takes_no_part(daemon: Daemon) -> None:
    """Two wait for their batch to fill, one leaves, three more come: the batch is of the four that stayed."""

    async def scenario() -> list[Prediction]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:

            def ask(n: int) -> asyncio.Task[Prediction]:
                return asyncio.create_task(client.predict("faulty", {"x": one(n)}))

            stays, leaves = ask(0), ask(99)
            await asyncio.to_thread(in_flight, 2)
            leaves.cancel()
            await asyncio.wait([leaves])
            await asyncio.to_thread(cancelled)
            return list(await asyncio.gather(stays, ask(1), ask(2), ask(3)))

    def in_flight(count: int) -> None:
        daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == count, IDLE_SECONDS, "queued")

    def cancelled() -> None:
        counts = {"model": "faulty", "status": "CANCELLED"}
        daemon.wait_until(
            lambda: daemon.metric("predictd_requests_total", **counts) > before, IDLE_SECONDS, "cancelled"
        )

    before = daemon.metric("predictd_requests_total", model="faulty", status="CANCELLED")
    dropped = daemon.metric("predictd_dropped_total", model="faulty", reason="cancelled")
    for n, prediction in enumerate(asyncio.run(scenario())):
        assert prediction.outputs["y"] == n
        assert prediction.timing.batch_rows == 4
    daemon.wait_metric("predictd_dropped_total", dropped + 1, model="faulty", reason="cancelled")
    assert_idle(daemon)


def test_a_deadline_that_has_passed_leaves_nothing(daemon: Daemon, client: Client) -> None:
    for deadline in (-1.0, 0.0, 1e-9):
        with pytest.raises(DeadlineExceededError):
            client.predict("slow", {"x": one(BLOCK)}, deadline=deadline)
    assert_idle(daemon)
    assert_answers(daemon)


def test_short_deadlines_under_load_end_in_time_and_leave_nothing(daemon: Daemon) -> None:
    """One runs at a time and takes 0.1 s: of 60 that wait a second at most, most are given up."""
    runs = daemon.metric("predictd_run_requests_total", model="slow")

    async def scenario() -> list[Prediction | BaseException]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            x = one(BLOCK)
            calls = (client.predict("slow", {"x": x}, deadline=0.02 * n) for n in range(1, 61))
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(scenario())
    answered = [answer for answer in answers if isinstance(answer, Prediction)]
    # Once a few were answered it is known how long others would wait, and they are refused at once.
    given_up = [a for a in answers if isinstance(a, DeadlineExceededError | OverloadedError)]
    assert len(answered) + len(given_up) == 60
    assert len(answered) < 30
    assert_idle(daemon)
    dropped = daemon.metric("predictd_dropped_total", model="slow")
    ran = daemon.metric("predictd_run_requests_total", model="slow") - runs
    assert len(answered) <= ran < 30
    assert dropped > 0
    assert_answers(daemon)


@pytest.mark.parametrize("timeout", ["99999999H", "2562047H", "99999999S"])
def test_the_longest_deadline_that_can_be_written_is_none(daemon: Daemon, timeout: str) -> None:
    """Go's clients send the longest duration that they have, 2,562,047 hours."""
    x = v1.Tensor(name="x", dtype=v1.FP32, shape=[1, 4], data=rows(1).tobytes())
    request = v1.PredictRequest(model="rows", inputs=[x]).SerializeToString()
    assert b"rows" in call_with_timeout(daemon, timeout, request)


def call_with_timeout(daemon: Daemon, timeout: str, data: bytes) -> bytes:
    """What a call brings whose `grpc-timeout` says just this, which grpcio lets nobody write."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": PREDICT,
        ":authority": daemon.grpc,
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": timeout,
    }
    block = b"".join(
        b"\0%c%s%c%s" % (len(name), name.encode(), len(value), value.encode())
        for name, value in headers.items()
    )
    body = struct.pack(">BI", 0, len(data)) + data
    host, _, port = daemon.grpc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(4, 0, 0, b"")
            + frame(1, 4, 1, block)
            + frame(0, 1, 1, body)
        )
        with connection.makefile("rb") as stream:
            brought, flags, number = b"", 0, 0
            while not (number == 1 and flags & 1):
                word, flags, number = struct.unpack(">IBI", stream.read(9))
                content = stream.read(word >> 8)
                brought += content if word & 255 == 0 else b""
    return brought


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) << 8 | kind, flags, stream) + body
