"""Frames of HTTP/2 and the messages of gRPC in them, as they travel."""

from __future__ import annotations

import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS, PADDED, PRIORITY = 4, 8, 32
FRAME = struct.Struct(">IBI")  # length and type share the first word
FRAME_BYTES_MAX = 16384
SETTING = struct.Struct(">HI")
SETTING_TABLE, SETTING_STREAMS, SETTING_WINDOW, SETTING_FRAME_BYTES = 1, 3, 4, 5
WINDOW_BYTES_MAX = 2**31 - 1
WINDOW_BYTES_DEFAULT = 65535
# Of a gRPC message: whether it is compressed, and its length.
PREFIX_BYTES = 5
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """One frame as it travels."""
    return FRAME.pack(len(body) << 8 | kind, flags, stream) + body


_SETTINGS_BODY = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, WINDOW_BYTES_MAX)  # no table, no push, wide streams
# What a client begins with.
HELLO = (
    PREFACE
    + frame(SETTINGS, 0, 0, _SETTINGS_BODY)
    + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_BYTES_MAX - WINDOW_BYTES_DEFAULT))
)


def content(flags: int, body: bytes) -> bytes:
    """A frame's content without its padding and priority."""
    if flags & PADDED:
        body = body[1 : len(body) - body[0]]
    return body[5:] if flags & PRIORITY else body


def prefixed(message: bytes) -> bytes:
    """A message as it travels in a call."""
    return b"\0" + struct.pack(">I", len(message)) + message
