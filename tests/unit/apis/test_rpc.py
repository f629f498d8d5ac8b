from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.rpc import SCANNED_BYTES, Context, deadline_ns, fitting, inference
from predictd.server.frontend.heading import Heading
from predictd.server.frontend.status import StatusTable
from tests.unit.apis.test_fake_core import FakeCore, refusal, serving, unary


class Call:
    def __init__(self, remaining_seconds: float | None) -> None:
        self._remaining_seconds = remaining_seconds

    def time_remaining(self) -> float | None:
        return self._remaining_seconds


def deadline_of(remaining_seconds: float | None) -> int:
    context: Context = Call(remaining_seconds)  # type: ignore[assignment]
    return deadline_ns(context)


def test_a_deadline_is_a_moment_of_the_monotonic_clock() -> None:
    before_ns = time.monotonic_ns()
    assert before_ns + 5 * 10**9 <= deadline_of(5.0) <= time.monotonic_ns() + 5 * 10**9
    assert deadline_of(0.0) >= before_ns


@pytest.mark.parametrize("remaining_seconds", [None, 2_562_047 * 3600.0, 99_999_999 * 3600.0])
def test_one_that_is_beyond_64_bits_is_none(remaining_seconds: float | None) -> None:
    assert deadline_of(remaining_seconds) == 0


def test_an_answer_as_large_as_the_limit_fits_and_no_larger_one() -> None:
    assert fitting(b"four", 4) == b"four"
    with pytest.raises(InvalidRequestError, match=r"5 bytes and a message may have 4 \(max_message_size\)"):
        fitting(b"fives", 4)


# Refused before it is received or parsed ----------------------------------------------------------------------


def named(data: bytes) -> Heading | None:
    return Heading(data[:1].decode(), size_bytes=len(data))


@asynccontextmanager
async def one_method(core: FakeCore) -> AsyncIterator[grpc.aio.Channel]:
    async def answer(data: bytes, deadline: int) -> bytes:
        assert deadline > 0
        return data[:1]

    handler = inference(answer, StatusTable(), core, "api", named)
    async with serving(grpc.method_handlers_generic_handler("t.T", {"Infer": handler})) as channel:
        yield channel


def test_what_is_refused_at_the_headers_is_not_received() -> None:
    async def scenario() -> None:
        core = FakeCore()
        async with one_method(core) as channel:
            call = unary(channel, "/t.T/Infer")
            assert await call(b"abc", timeout=20) == b"a"
            assert core.unread == []
            core.pressed = core.refuse_unread = True
            # More than gRPC lets this server receive, so that it would say so itself.
            metadata = (("predictd-model", "m"), ("predictd-priority", "2"))
            error = await refusal(call(bytes(5 << 20), timeout=20, metadata=metadata))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error.details() == "too much to do"
            trailers = dict(error.trailing_metadata())
            assert trailers["grpc-retry-pushback-ms"] == "500"
            assert "grpc-status-details-bin" in trailers
            ((heading, api, deadline),) = core.unread
            assert (heading, api) == (Heading("m", priority=2), "api")
            assert deadline > time.monotonic_ns()

    asyncio.run(scenario())


def test_a_large_request_is_looked_at_before_it_is_parsed() -> None:
    async def scenario() -> None:
        core = FakeCore()
        core.pressed = True
        async with one_method(core) as channel:
            call = unary(channel, "/t.T/Infer")
            assert await call(b"a" * (SCANNED_BYTES - 1), timeout=20) == b"a"
            assert len(core.unread) == 1
            assert core.unparsed == []
            error = await refusal(call(b"a" * SCANNED_BYTES, timeout=20))
            assert error.details() == "too much to do"
            ((heading, _, _),) = core.unparsed
            assert heading == Heading("a", size_bytes=SCANNED_BYTES)

    asyncio.run(scenario())


def test_a_call_without_a_request_is_told_so() -> None:
    async def scenario() -> None:
        async with one_method(FakeCore()) as channel:
            method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/t.T/Infer")
            error = await refusal(method(iter(()), timeout=20))  # type: ignore[arg-type]
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == "the call ended without a request"

    asyncio.run(scenario())
