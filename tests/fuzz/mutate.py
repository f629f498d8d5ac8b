"""Messages made wrong: mutations of real ones, of their bytes and of the structure of protocol buffers in them.

What comes out depends on the random numbers alone, so a message is found again by its seed.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from predictd.server.frontend.varint import encode_varint

# Where decoders go wrong: ends of ranges, and products of them beyond 32 and 64 bits.
NUMBERS = (
    *(0, 1, 2, 3, 7, 64, 127, 128, 255, 256, 4095, 4096, 65535, 65536),
    *(2**n + d for n in (24, 31, 32, 40, 48, 62, 63, 64) for d in (-1, 0)),
    *(2**64 - n for n in (1, 2, 8, 2**31)),
)
FLOATS = (0.0, -0.0, 1.0, float("inf"), float("-inf"), float("nan"), 5e-324, 1.8e308, 1e39)
TEXTS = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"../../etc/passwd",
    b"%s%n",
    b"a" * 300,
    "é\u202e\U0010ffff".encode(),
)
LONGEST_BYTES = 64 * 1024

Mutation: TypeAlias = Callable[[random.Random, bytearray], None]


class Mutator:
    """Makes wrong messages of right ones.

    Args:
        seeds: The right ones.
        draw: Random numbers.
        words: Pieces that mean something to the decoder, such as keys of a file.
        binary: The messages are protocol buffers or records; else they are text.
    """

    def __init__(
        self,
        seeds: Sequence[bytes],
        draw: random.Random,
        *,
        words: Sequence[bytes] = (),
        binary: bool = True,
    ) -> None:
        self.seeds = list(seeds)
        self._draw = draw
        self._words = (*TEXTS, *words)
        self._mutations = (*_PLAIN, *(_BINARY if binary else _TEXTUAL))

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self.mutate(self._draw.choice(self.seeds))

    def mutate(self, message: bytes) -> bytes:
        """A message like this one, but for one to a few changes."""
        data = bytearray(message)
        for _ in range(1 + min(int(self._draw.expovariate(0.7)), 12)):
            which = self._draw.random()
            if which < 0.08:
                self._splice(data)
            elif which < 0.16:
                _insert(self._draw, data, self._draw.choice(self._words))
            else:
                self._draw.choice(self._mutations)(self._draw, data)
        return bytes(data[:LONGEST_BYTES])

    def _splice(self, data: bytearray) -> None:
        other = self._draw.choice(self.seeds)
        start, end = _span(self._draw, other)
        _insert(self._draw, data, other[start:end])


def _span(draw: random.Random, data: bytes | bytearray) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, 16, 64, 1024)))


def _insert(draw: random.Random, data: bytearray, piece: bytes) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = piece


def _flip(draw: random.Random, data: bytearray) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _set_byte(draw: random.Random, data: bytearray) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def _cut_out(draw: random.Random, data: bytearray) -> None:
    start, end = _span(draw, data)
    del data[start:end]


def _cut_off(draw: random.Random, data: bytearray) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _repeat(draw: random.Random, data: bytearray) -> None:
    start, end = _span(draw, data)
    data[start:start] = data[start:end] * draw.choice((1, 2, 10, 100))


def _move(draw: random.Random, data: bytearray) -> None:
    start, end = _span(draw, data)
    piece = bytes(data[start:end])
    del data[start:end]
    _insert(draw, data, piece)


def _noise(draw: random.Random, data: bytearray) -> None:
    _insert(draw, data, draw.randbytes(draw.randrange(1, 32)))


def _number(draw: random.Random, data: bytearray) -> None:
    """A number in the place of whatever stands there, as records and lists of fixed size have it."""
    value = draw.choice(NUMBERS)
    size = draw.choice((2, 4, 8))
    at = draw.randrange(len(data) + 1)
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def _float(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data) + 1)
    data[at : at + 8] = struct.pack("<d", draw.choice(FLOATS))


def _varint(draw: random.Random, data: bytearray) -> None:
    start, end = _some_varint(draw, data)
    data[start:end] = encode_varint(draw.choice(NUMBERS) % 2**64)


def _nudge(draw: random.Random, data: bytearray) -> None:
    """A varint, such as a length, that is off by a little."""
    start, end = _some_varint(draw, data)
    value = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(data[start:end]))
    data[start:end] = encode_varint(max(0, value + draw.choice((-2, -1, 1, 2, 8))))


def _some_varint(draw: random.Random, data: bytearray) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    end = start
    while end < min(len(data), start + 10) and data[end] > 0x7F:
        end += 1
    return start, min(end + 1, len(data))


def _fields(data: bytearray) -> list[tuple[int, int, int]]:
    """Start, start of the content and end of each field with a length, as far as there are such."""
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(data) and len(found) < 64:
        start = at
        tag, at = _read(data, at)
        size, at = _read(data, at)
        if tag & 7 == 2 and at + size <= len(data):
            found.append((start, at, at + size))
            at += size
        elif tag & 7 not in (0, 2):
            at += 3 if tag & 7 == 5 else 7
    return found


def _read(data: bytearray, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > 63:
            break
    return value, at


def _in_field(draw: random.Random, data: bytearray) -> None:
    """Change the content of a field and keep its length right, so that decoders get beyond it."""
    fields = _fields(data)
    if not fields:
        return
    start, content, end = draw.choice(fields)
    inner = data[content:end]
    draw.choice(
        (_in_field, _flip, _varint, _nudge, _repeat, _repeat_field, _drop_field, _number, _cut_out, _float)
    )(draw, inner)
    _, after_tag = _read(data, start)
    data[after_tag:end] = encode_varint(len(inner)) + inner


def _repeat_field(draw: random.Random, data: bytearray) -> None:
    fields = _fields(data)
    if fields:
        start, _, end = draw.choice(fields)
        data[start:start] = data[start:end] * draw.choice((1, 1, 2, 50))


def _drop_field(draw: random.Random, data: bytearray) -> None:
    fields = _fields(data)
    if fields:
        start, _, end = draw.choice(fields)
        del data[start:end]


def _other_tag(draw: random.Random, data: bytearray) -> None:
    fields = _fields(data)
    if fields:
        start = draw.choice(fields)[0]
        data[start] = draw.randrange(1, 20) << 3 & 0xFF | draw.choice((0, 1, 2, 2, 2, 5))


def _nest(draw: random.Random, data: bytearray) -> None:
    """A message in itself, again and again."""
    tag = bytes([draw.choice((0x0A, 0x12, 0x1A, 0x2A))])
    for _ in range(draw.choice((1, 3, 30, 150))):
        data[:] = tag + encode_varint(len(data)) + data
        if len(data) > LONGEST_BYTES:
            return


def _groups(draw: random.Random, data: bytearray) -> None:
    depth = draw.choice((1, 50, 5000))
    _insert(draw, data, b"\x0b" * depth + (b"\x0c" * depth if draw.random() < 0.5 else b""))


def _digits(draw: random.Random, data: bytearray) -> None:
    written = draw.choice(NUMBERS)
    text = draw.choice(
        (str(written), f"-{written}", hex(written), f"{written}.5e9", "9" * 400, "1e999", "nan")
    )
    _insert(draw, data, text.encode())


def _brackets(draw: random.Random, data: bytearray) -> None:
    _insert(
        draw,
        data,
        draw.choice((b"[", b"{", b"<", b"]", b"}", b">", b'"', b"'", b"\\", b"#", b"=", b":", b".", b"\n"))
        * draw.choice((1, 1, 1, 2, 3, 200, 5000)),
    )


_PLAIN: Sequence[Mutation] = (_flip, _set_byte, _cut_out, _cut_off, _repeat, _move, _noise)
_BINARY: Sequence[Mutation] = (
    *(_number, _float, _varint, _varint, _nudge, _other_tag, _repeat_field, _drop_field, _nest, _groups),
    *(_in_field,) * 8,
)
_TEXTUAL: Sequence[Mutation] = (*(_digits, _brackets) * 3,)
