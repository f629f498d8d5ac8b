"""HTTP/2 made wrong: real connections to a gRPC server as bytes, to be mutated."""

from __future__ import annotations

import errno
import random
import socket
import struct
import time
from collections.abc import Sequence

from predictd.client.channel import PREDICT, PREDICT_STREAM
from predictd.server.bench.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    prefixed,
)
from predictd.server.bench.hpack import RequestHeaders
from tests.fuzz.mutate import Mutator

_HELLO = PREFACE + frame(SETTINGS, 0, 0, SETTING.pack(1, 0)) + frame(SETTINGS, ACK, 0, b"")
WORDS = tuple(
    frame(kind, flags, stream, body)
    for kind, flags, stream, body in (
        (PING, 0, 0, bytes(8)),
        (RST_STREAM, 0, 1, struct.pack(">I", 8)),
        (WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
        (WINDOW_UPDATE, 0, 1, bytes(4)),
        (GOAWAY, 0, 0, bytes(8)),
        (CONTINUATION, END_HEADERS, 1, b""),
        (DATA, END_STREAM, 1, b""),
        (DATA, 8, 1, b"\xff"),
        (SETTINGS, 0, 0, SETTING.pack(4, 2**32 - 1)),
        (SETTINGS, 0, 0, SETTING.pack(5, 1)),
        (99, 255, 2**32 - 1, bytes(3)),
    )
)


def connections(requests: Sequence[bytes]) -> list[bytes]:
    """What clients send on whole connections: unary calls, streams, messages in pieces, compressed ones."""
    found = []
    for request in requests:
        block, again = RequestHeaders(PREDICT, "x").blocks()
        message = prefixed(request)
        half = len(message) // 2
        call = frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, message)
        pieces = (
            frame(HEADERS, 0, 1, block[:20])
            + frame(CONTINUATION, END_HEADERS, 1, block[20:])
            + frame(DATA, 0, 1, message[:half])
            + frame(DATA, END_STREAM, 1, message[half:])
            + frame(HEADERS, END_HEADERS, 3, again)
            + frame(DATA, END_STREAM, 3, message)
        )
        stream = RequestHeaders(PREDICT_STREAM, "x", "1S").blocks()[0]
        streamed = frame(HEADERS, END_HEADERS, 1, stream) + frame(DATA, END_STREAM, 1, message * 3)
        packed = frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, b"\x01" + message[1:])
        found += [call, pieces, streamed, packed]
    return found


def mutator(requests: Sequence[bytes], seed: int) -> Mutator:
    """Makes wrong connections; what comes before the first frame is added by `send`."""
    return Mutator(connections(requests), random.Random(seed), words=WORDS)


def _connected(address: tuple[str, int], seconds: float) -> socket.socket:
    """A connection. Between a server that a wrong path has deafened and the next one nobody listens for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(address, timeout=seconds)
        except (ConnectionRefusedError, ConnectionResetError):
            if time.monotonic() > deadline:
                raise


def send(address: tuple[str, int], data: bytes, seconds: float) -> bool:
    """Say so much on a new connection and no more. Whether the server closes it, or ends what was begun, in time."""
    with _connected(address, seconds) as connection:
        try:
            connection.sendall(_HELLO + data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError as error:
            # ENOTCONN is what `shutdown` says of a connection that was reset meanwhile, and no ConnectionError.
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
    return True
