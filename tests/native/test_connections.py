"""What connections may do, told by frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.native.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    LAST_STREAM_ID,
    NO_ERROR,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawClient,
    frame,
    header_block,
    message,
    raw_client,
)
from tests.native.serving import MESSAGE_BYTES_MAX, Served, run, serving

_SECOND = 10**9
# A literal whose name is that of ":status".
_PRIORITY = 2
_UNKNOWN = 0xBA
_STATUS_405, _STATUS_415 = b"H\x03405", b"H\x03415"


def scenario(check: Callable[[RawClient], Any], *, greet: bool = True, **rules: int) -> None:
    """Run what a client does, in a thread, against a server with such rules."""

    def client(address: str) -> None:
        with raw_client(address, greet=greet) as raw:
            check(raw)

    async def test() -> None:
        async with serving(**rules) as served:
            await asyncio.to_thread(client, served.address)
            await still_serves(served)

    run(test)


async def still_serves(served: Served) -> None:
    assert await served.unary(b"still here") == b"still here"


def test_what_is_not_grpc_has_an_answer_of_http() -> None:
    def check(raw: RawClient) -> None:
        raw.call(1, method="GET")
        assert _STATUS_405 in raw.until(HEADERS).payload
        raw.call(3, content_type="application/json")
        assert _STATUS_415 in raw.until(HEADERS).payload
        raw.call(5, content_type=None)
        raw.until(HEADERS)
        raw.call(7, b"fine", content_type="application/grpc+proto")
        assert raw.until(DATA).payload == message(b"fine")

    scenario(check)


def test_an_answer_before_the_request_has_ended_stops_the_request() -> None:
    def check(raw: RawClient) -> None:
        raw.call(1, None, path="/test.Echo/Missing")
        assert raw.until(HEADERS, END_STREAM).stream == 1
        assert raw.until(RST_STREAM).number == NO_ERROR
        # Refused by the length that is declared, before anything was sent.
        raw.call(3, None)
        raw.send(frame(DATA, 0, 3, b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4)))
        assert raw.until(HEADERS, END_STREAM).stream == 3
        assert raw.until(RST_STREAM).number == NO_ERROR

    scenario(check)


def test_a_request_that_breaks_off_is_no_request() -> None:
    def check(raw: RawClient) -> None:
        raw.call(1, None)
        raw.send(frame(DATA, END_STREAM, 1, message(b"whole")[:-1]))
        assert raw.until(HEADERS, END_STREAM).stream == 1
        raw.call(3, None)
        raw.send(frame(DATA, END_STREAM, 3))
        assert raw.until(HEADERS, END_STREAM).stream == 3
        # Byte by byte is whole, too.
        raw.call(5, None)
        for byte in message(b"whole"):
            raw.send(frame(DATA, 0, 5, bytes((byte,))))
        raw.send(frame(DATA, END_STREAM, 5))
        assert raw.until(DATA).payload == message(b"whole")

    scenario(check)


def test_a_client_may_leave_a_call_at_any_stage() -> None:
    def check(raw: RawClient) -> None:
        for stream in range(1, 400, 4):
            raw.call(stream, None, path="/test.Echo/Forever")
            if stream % 3:
                raw.send(frame(DATA, 0, stream, message(b"x" * stream)[: stream % 7 + 3]))
            raw.send(frame(RST_STREAM, 0, stream, (8).to_bytes(4)))
        raw.call(1001, b"fine")
        assert raw.until(DATA).payload == message(b"fine")

    scenario(check)


def test_an_old_connection_is_asked_to_leave_in_two_steps() -> None:
    def check(raw: RawClient) -> None:
        raw.call(1, None, path="/test.Echo/Joined")
        first = raw.until(GOAWAY)
        assert (first.number, first.last_stream) == (NO_ERROR, LAST_STREAM_ID)
        # Sent before the client knew: still served.
        raw.call(3, b"late")
        seen = []
        for one in raw.frames():
            seen.append(one)
            if one.kind == GOAWAY:
                raw.send(frame(DATA, END_STREAM, 1, message(b"x")))
        assert [one.last_stream for one in seen if one.kind == GOAWAY] == [3]
        assert {one.stream for one in seen if one.kind == DATA} == {1, 3}

    scenario(check, max_age_ns=_SECOND // 5, max_age_grace_ns=30 * _SECOND)


def test_calls_of_an_old_connection_have_their_time() -> None:
    def check(raw: RawClient) -> None:
        raw.call(1, b"", path="/test.Echo/Forever")
        assert [one.number for one in raw.ended() if one.kind == GOAWAY] == [NO_ERROR, NO_ERROR]

    scenario(check, max_age_ns=_SECOND // 5, max_age_grace_ns=_SECOND // 5)


def test_the_age_of_a_connection_begins_with_its_first_word() -> None:
    def check(raw: RawClient) -> None:
        # Longer than it may live, and shorter than it may be silent.
        time.sleep(1.3)
        raw.send(PREFACE, frame(SETTINGS, 0, 0))
        raw.call(1, b"x")
        seen = [one.kind for one in raw.frames() if one.kind in (DATA, GOAWAY)]
        assert seen == [DATA, GOAWAY, GOAWAY]

    scenario(check, greet=False, max_age_ns=_SECOND, handshake_timeout_ns=60 * _SECOND)


@pytest.mark.parametrize("calls", [0, 1])
def test_an_idle_connection_is_closed(calls: int) -> None:
    def check(raw: RawClient) -> None:
        if calls:
            raw.call(1, b"x")
        assert [one.number for one in raw.ended() if one.kind == GOAWAY] == [NO_ERROR, NO_ERROR]

    scenario(check, max_idle_ns=_SECOND // 5)


def test_who_does_not_begin_to_speak_http2_is_not_waited_for() -> None:
    scenario(lambda raw: raw.ended(), greet=False, handshake_timeout_ns=_SECOND // 5)


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" * 20, b"\0" * 100]
)
def test_what_is_not_http2_ends_its_connection(nonsense: bytes) -> None:
    def check(raw: RawClient) -> None:
        raw.send(nonsense)
        raw.ended()

    scenario(check, greet=False)


def test_a_client_that_does_not_answer_is_cut() -> None:
    def check(raw: RawClient) -> None:
        raw.send(PREFACE, frame(SETTINGS, 0, 0))
        received = b""
        while more := raw._socket.recv(65536):
            received += more
        # It was asked first.
        assert b"\0\0\x08\x06\0\0\0\0\0" in received

    scenario(check, greet=False, keepalive_time_ns=_SECOND // 5, keepalive_timeout_ns=_SECOND // 5)


def test_a_client_that_answers_is_kept() -> None:
    def check(raw: RawClient) -> None:
        for _ in range(4):
            raw.until(PING)
        raw.call(1, b"fine")
        assert raw.until(DATA).payload == message(b"fine")

    scenario(check, keepalive_time_ns=_SECOND // 10, keepalive_timeout_ns=20 * _SECOND)


def test_a_client_that_asks_too_often_is_sent_away() -> None:
    def check(raw: RawClient) -> None:
        raw.send(*(frame(PING, 0, 0, bytes(8)) for _ in range(10)))
        going = next(one for one in raw.ended() if one.kind == GOAWAY)
        assert (going.number, going.payload[8:]) == (ENHANCE_YOUR_CALM, b"too_many_pings")

    scenario(check, max_ping_strikes=2)


def test_a_client_that_also_works_may_ask() -> None:
    def check(raw: RawClient) -> None:
        for stream in range(1, 21, 2):
            raw.send(frame(PING, 0, 0, bytes(8)))
            raw.until(PING, ACK)
            raw.call(stream, b"fine")
            raw.until(HEADERS, END_STREAM)

    scenario(check, max_ping_strikes=2)


def test_frames_of_unknown_kinds_are_passed_over() -> None:
    def check(raw: RawClient) -> None:
        for kind in (_UNKNOWN, 0x0A, 0x0C, 0x10, 0xFF):
            raw.send(frame(kind, 0, 0, b"grease"), frame(kind, 0xFF, 1))
        raw.call(1, b"fine")
        assert raw.until(DATA).payload == message(b"fine")

    scenario(check)


def test_a_client_that_works_may_move_its_windows_as_often_as_it_likes() -> None:
    def check(raw: RawClient) -> None:
        for stream in range(1, 2 * 400, 2):
            raw.send(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 10)
            raw.call(stream, b"fine")
            raw.until(HEADERS, END_STREAM)

    scenario(check)


def _rapid_resets() -> bytes:
    block = header_block(path="/test.Echo/Forever")
    return b"".join(
        frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, (8).to_bytes(4))
        for stream in range(1, 8001, 2)
    )


def _endless_headers() -> bytes:
    first = frame(HEADERS, 0, 1, header_block())
    return first + b"".join(frame(CONTINUATION, 0, 1, b"\0\1x\1y" * 100) for _ in range(1000))


FLOODS = {
    "rapid resets": _rapid_resets(),
    "continuations": _endless_headers(),
    "settings": frame(SETTINGS, 0, 0) * 20_000,
    "pings": frame(PING, 0, 0, bytes(8)) * 20_000,
    "acknowledged pings": frame(PING, ACK, 0, bytes(8)) * 20_000,
    "window updates": frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 20_000,
    "priorities": frame(_PRIORITY, 0, 1, bytes(5)) * 20_000,
    "frames of unknown kinds": frame(_UNKNOWN, 0, 1, bytes(8)) * 20_000,
    "empty data": frame(HEADERS, END_HEADERS, 1, header_block(path="/test.Echo/Joined"))
    + frame(DATA, 0, 1) * 20_000,
    "settings with many entries": frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff" * 100) * 10,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection(flood: str) -> None:
    def check(raw: RawClient) -> None:
        try:
            # Without reading: answers are owed.
            raw.send(FLOODS[flood])
        except (ConnectionResetError, BrokenPipeError):
            return
        raw.ended()

    started = time.monotonic()
    scenario(check, max_ping_strikes=0, max_streams=1000)
    assert time.monotonic() - started < 30
