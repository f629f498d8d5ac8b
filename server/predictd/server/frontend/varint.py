"""Numbers of variable length, as protocol buffers have them: seven bits a byte, the lowest first."""

from __future__ import annotations

VARINT_BYTES_MAX = 10
_UINT64_MAX = 2**64 - 1


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends; -1 where there is none.

    Args:
        data: Where it is.
        at: Its first byte.
        end: The byte after the last that it may have.
    """
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for shift in range(0, 7 * VARINT_BYTES_MAX, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _UINT64_MAX, at
    return 0, -1


def encode_varint(value: int) -> bytes:
    """A number that is not negative, as it is written."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
