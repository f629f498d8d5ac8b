"""gRPC's words in forms that no library sends: read as gRPC's own server reads them, or refused in words."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import grpc
import pytest

from predictd.server.bench.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    frame,
    prefixed,
)
from tests.native.frames import (
    GRPC_ACCEPT_ENCODING,
    WRITTEN_OUT,
    RawClient,
    grpc_status,
    header_block,
    raw_client,
)
from tests.native.serving import MESSAGE_BYTES_MAX, Served, failure, run, serving
from tests.native.test_connections import scenario

_PLAIN = prefixed(b"plain")
_OK, _INTERNAL, _EXHAUSTED, _UNIMPLEMENTED = "0", "13", "8", "12"


def outcome(raw: RawClient, stream: int) -> str:
    """The status of a call, or what else has become of it."""
    for one in raw.frames():
        if one.kind == GOAWAY:
            return f"GOAWAY {one.number}"
        if one.stream == stream and one.kind == RST_STREAM:
            return f"RST_STREAM {one.number}"
        if one.stream == stream and one.kind == HEADERS and one.flags & END_STREAM:
            status = grpc_status(one.payload)
            return "HTTP" if status is None else str(status)
    return "closed"


def compressed(content: bytes) -> bytes:
    return b"\1" + len(content).to_bytes(4) + content


CALLS: dict[str, tuple[dict[str, str | None], bytes, str]] = {
    "a suffix": ({"content_type": "application/grpc+proto"}, _PLAIN, _OK),
    "a parameter": ({"content_type": "application/grpc;charset=utf-8"}, _PLAIN, _OK),
    "another protocol": ({"content_type": "application/grpc-web"}, _PLAIN, "HTTP"),
    "no te": ({"te": None}, _PLAIN, _OK),
    "no path": ({"path": ""}, _PLAIN, "RST_STREAM 1"),
    "a path to nowhere": ({"path": "/test.Echo/Unary?x=1"}, _PLAIN, _UNIMPLEMENTED),
    "a path that is no text": ({"path": "/\u00e9"}, _PLAIN, _UNIMPLEMENTED),
    "no time at all": ({"grpc_timeout": "0n", "path": "/test.Echo/Forever"}, _PLAIN, "4"),
    "leading zeros": ({"grpc_timeout": "00000100S"}, _PLAIN, _OK),
    "more than 64 bits": ({"grpc_timeout": "99999999H"}, _PLAIN, _OK),
    "more digits than there may be": ({"grpc_timeout": "0" * 20 + "S"}, _PLAIN, _OK),
    **{
        f"a time of {text!r}": ({"grpc_timeout": text}, _PLAIN, _INTERNAL)
        for text in ("", "S", "1", "1x", "-1S", "+1S", "1.5S", "1SS")
    },
    "two requests": ({}, _PLAIN + _PLAIN, _OK),
    "no request": ({}, b"", _INTERNAL),
    "a part of a prefix": ({}, _PLAIN[:3], _INTERNAL),
    "an empty request": ({}, prefixed(b""), _OK),
    "an unknown flag": ({}, b"\2" + _PLAIN[1:], _INTERNAL),
    "compressed by nobody knows what": ({}, compressed(b"x"), _INTERNAL),
    "compressed by nothing": ({"grpc_encoding": "identity"}, compressed(b"x"), _INTERNAL),
    "compressed by something else": ({"grpc_encoding": "snappy"}, compressed(b"x"), _UNIMPLEMENTED),
    "an encoding that is not used": ({"grpc_encoding": "gzip"}, _PLAIN, _OK),
    "gzip": ({"grpc_encoding": "gzip"}, compressed(gzip.compress(b"plain")), _OK),
    "deflate": ({"grpc_encoding": "deflate"}, compressed(zlib.compress(b"plain")), _OK),
    "gzip of nothing": ({"grpc_encoding": "gzip"}, compressed(b""), _OK),
    "gzip cut off": ({"grpc_encoding": "gzip"}, compressed(gzip.compress(b"plain" * 99)[:-9]), _INTERNAL),
    "gzip and more": ({"grpc_encoding": "gzip"}, compressed(gzip.compress(b"plain") + b"x"), _INTERNAL),
    "too much": (
        {"grpc_encoding": "gzip"},
        compressed(gzip.compress(bytes(MESSAGE_BYTES_MAX + 1))),
        _EXHAUSTED,
    ),
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What becomes of all of these, one after the other on one connection."""
    found: dict[str, str] = {}

    def check(raw: RawClient) -> None:
        raw.send(frame(SETTINGS, 0, 0, WRITTEN_OUT))
        for number, (name, (changes, content, _)) in enumerate(CALLS.items()):
            stream = 2 * number + 1
            raw.send(frame(HEADERS, END_HEADERS, stream, header_block(**changes)))
            raw.send(frame(DATA, END_STREAM, stream, content))
            found[name] = outcome(raw, stream)

    scenario(check)
    return found


@pytest.mark.parametrize("name", CALLS)
def test_a_call_in_an_odd_form(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name] == CALLS[name][2]


def test_who_compresses_by_something_else_is_told_what_is_understood() -> None:
    def check(raw: RawClient) -> None:
        raw.call(1, None, grpc_encoding="snappy")
        raw.send(frame(DATA, END_STREAM, 1, compressed(b"x")))
        assert GRPC_ACCEPT_ENCODING in raw.until(HEADERS, END_STREAM).payload

    scenario(check)


def test_a_status_whose_text_is_long_or_no_text_reaches_the_client() -> None:
    async def test() -> None:
        async with serving() as served:
            error = await failure(served.unary("\u20ac".encode() * 15_000, "Abort"))
            # Whole letters.
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "\u20ac" * (2048 // 3))
            error = await failure(served.unary(b"\xff\xfe", "Abort"))
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, r"\udcff\udcfe")

    run(test)


def test_metadata_in_odd_forms() -> None:
    forms: dict[tuple[str, str], list[tuple[str, Any]]] = {
        ("a-bin", "AAE"): [("a-bin", b"\0\1")],
        ("a-bin", "AAE="): [("a-bin", b"\0\1")],
        ("a-bin", "AAE,AAI="): [("a-bin", b"\0\1"), ("a-bin", b"\0\2")],
        ("a-bin", "!!"): [],
        ("a-bin", ""): [("a-bin", b"")],
        ("a", "caf\u00e9"): [("a", "caf\u00e9")],
    }
    found: dict[tuple[str, str], list[tuple[str, Any]]] = {}

    def ask(served: Served) -> None:
        with raw_client(served.address) as raw:
            for number, (name, value) in enumerate(forms):
                raw.call(2 * number + 1, b"", **{name: value})
                raw.until(HEADERS, END_STREAM)
                found[name, value] = list(served.seen["metadata"])

    async def test() -> None:
        async with serving() as served:
            await asyncio.to_thread(ask, served)

    run(test)
    assert found == forms
