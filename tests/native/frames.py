"""A client that writes HTTP/2 frames by hand, for what no library would send."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from predictd.server.bench.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    frame,
    prefixed,
)
from predictd.server.bench.hpack import literal

NO_ERROR, ENHANCE_YOUR_CALM = 0, 11
LAST_STREAM_ID = 2**31 - 1
# To be sent first: every header of an answer is written out, none stands for one that was sent before.
WRITTEN_OUT = b"\0\1" + bytes(4)
# As HPACK compresses them.
GRPC_STATUS = bytes.fromhex("889acac8b21234da8f")
GRPC_ACCEPT_ENCODING = (
    bytes.fromhex("8e9acac8b0c842d6958b510f21aa9b")
    + b"\x91"
    + bytes.fromhex(
        "3485a9264fafa5242cb40d25fa526f66af"  # identity, deflate, gzip
    )
)


def grpc_status(trailers: bytes) -> int | None:
    """The status in trailers that are written out; None where there is none."""
    _, found, rest = trailers.partition(GRPC_STATUS)
    return int(rest[1 : 1 + rest[0]]) if found else None


@dataclass(frozen=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def number(self) -> int:
        """What a RST_STREAM or a GOAWAY says: its error code."""
        return int(struct.unpack_from("!I", self.payload, 4 if self.kind == GOAWAY else 0)[0])

    @property
    def last_stream(self) -> int:
        """Of a GOAWAY."""
        return int(struct.unpack_from("!I", self.payload)[0])


def header_block(**changes: str | None) -> bytes:
    """Headers of a call, each a literal that is not indexed; `_` stands for `-`, and None leaves one out."""
    headers: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/test.Echo/Unary",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    for name, value in changes.items():
        key = name.replace("_", "-")
        headers[f":{key}" if f":{key}" in headers else key] = value
    return b"".join(
        literal(name.encode(), value.encode()) for name, value in headers.items() if value is not None
    )


class RawClient:
    """One connection."""

    def __init__(self, address: str, *, greet: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30)
        self._received = b""
        if greet:
            self.send(PREFACE, frame(SETTINGS, 0, 0))

    def send(self, *frames: bytes) -> None:
        """Send frames."""
        self._socket.sendall(b"".join(frames))

    def call(self, stream: int, content: bytes | None = b"", **changes: str | None) -> None:
        """Begin a call; without content it stays open."""
        flags = END_HEADERS
        self.send(frame(HEADERS, flags, stream, header_block(**changes)))
        if content is not None:
            self.send(frame(DATA, END_STREAM, stream, prefixed(content)))

    def frames(self) -> Iterator[Frame]:
        """What comes, to the end of the connection. SETTINGS and PING are answered."""
        with suppress(ConnectionResetError, BrokenPipeError):
            yield from self._frames()

    def _frames(self) -> Iterator[Frame]:
        while True:
            while len(self._received) < 9 or len(self._received) < 9 + self._length():
                more = self._socket.recv(65536)
                if not more:
                    return
                self._received += more
            end = 9 + self._length()
            kind, flags, stream = struct.unpack_from("!BBI", self._received, 3)
            payload, self._received = self._received[9:end], self._received[end:]
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK, 0))
            if kind == PING and not flags & ACK:
                self.send(frame(PING, ACK, 0, payload))
            yield Frame(kind, flags, stream, payload)

    def until(self, kind: int, flags: int = 0) -> Frame:
        """The next frame of a kind that has these flags."""
        for one in self.frames():
            if one.kind == kind and one.flags & flags == flags:
                return one
        raise AssertionError(f"the connection ended without a frame of kind {kind}")

    def ended(self) -> list[Frame]:
        """All frames to the end of the connection."""
        return list(self.frames())

    def _length(self) -> int:
        return int.from_bytes(self._received[:3])

    def close(self) -> None:
        self._socket.close()


@contextmanager
def raw_client(address: str, *, greet: bool = True) -> Iterator[RawClient]:
    """A connection that is closed at the end."""
    with closing(RawClient(address, greet=greet)) as client:
        yield client
