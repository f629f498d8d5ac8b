"""Frames of HTTP/2: their kinds and flags, how one is written, what one carries (RFC 9113, sections 4 and 6)."""

from __future__ import annotations

import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS, PADDED, PRIORITY = 4, 8, 32
FRAME_BYTES_MAX = 16384
WINDOW_BYTES_MAX = 2**31 - 1
WINDOW_BYTES_DEFAULT = 65535
FRAME_HEADER = struct.Struct(">IBI")  # length and type share the first word
_SETTINGS_BODY = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, WINDOW_BYTES_MAX)  # no table, no push, wide streams


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """One frame as it travels."""
    return FRAME_HEADER.pack(len(body) << 8 | kind, flags, stream) + body


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HELLO = (
    PREFACE
    + frame(SETTINGS, 0, 0, _SETTINGS_BODY)
    + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_BYTES_MAX - WINDOW_BYTES_DEFAULT))
)


def content(flags: int, body: bytes) -> bytes:
    """What DATA or HEADERS carry, without padding and priority."""
    if flags & PADDED:
        body = body[1 : len(body) - body[0]]
    return body[5:] if flags & PRIORITY else body
