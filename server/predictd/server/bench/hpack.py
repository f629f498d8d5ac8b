"""The little of HPACK (RFC 7541) that a load generator needs.

Requests carry the headers that grpcio sends. The server is told that our table has no room, so its header
blocks do not depend on those before them and equal blocks mean equal headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The codes of appendix B for what may stand in `grpc-status` and its value; all others are never compared.
_HUFFMAN = {
    "0": "00000", "1": "00001", "2": "00010", "3": "011001", "4": "011010", "5": "011011", "6": "011100",
    "7": "011101", "8": "011110", "9": "011111", "-": "010110", "a": "00011", "c": "00100", "g": "100110",
    "p": "101011", "r": "101100", "s": "01000", "t": "01001", "u": "101101",
}  # fmt: skip

# Of a table that the server says nothing about, and what an entry takes in it besides its texts.
TABLE_BYTES_DEFAULT = 4096
_ENTRY_BYTES = 32
_SCHEMES = {"http": 6, "https": 7}
# Names in the static table; others are spelt out.
_STATIC: dict[bytes, int] = {
    b":authority": 1,
    b":path": 4,
    b"authorization": 23,
    b"content-type": 31,
    b"user-agent": 58,
}

Text = tuple[bool, bytes]
"""A string as it travels: whether it is Huffman-coded, and its bytes."""


class HpackError(Exception):
    """The block is not what a server may send to a client without a table."""


def _huffman(text: str) -> bytes:
    bits = "".join(_HUFFMAN[letter] for letter in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


_STATUS_NAMES: frozenset[Text] = frozenset({(False, b"grpc-status"), (True, _huffman("grpc-status"))})
_STATUS_CODES: dict[Text, int] = {
    **{(False, str(code).encode()): code for code in range(17)},
    **{(True, _huffman(str(code))): code for code in range(17)},
}


def _integer(block: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    limit = (1 << prefix_bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        value += (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:
            return value, at


def _text(block: bytes, at: int) -> tuple[Text, int]:
    coded = block[at] >= 128
    length, at = _integer(block, at, 7)
    return (coded, block[at : at + length]), at + length


def grpc_status(block: bytes) -> int:
    """The gRPC status in a header block, or HpackError if there is none."""
    try:
        return _grpc_status(block)
    except IndexError:
        raise HpackError(f"the block ends too early: {block.hex()}") from None


def _grpc_status(block: bytes) -> int:
    at = 0
    while at < len(block):
        first = block[at]
        if first >= 128:  # wholly from the static table, where grpc-status is not
            _, at = _integer(block, at, 7)
            continue
        if first & 0b1110_0000 == 0b0010_0000:  # the size of the table
            _, at = _integer(block, at, 5)
            continue
        name: Text = (False, b"")
        index, at = _integer(block, at, 6 if first & 0b0100_0000 else 4)
        if index == 0:
            name, at = _text(block, at)
        value, at = _text(block, at)
        if name in _STATUS_NAMES:
            if value not in _STATUS_CODES:
                raise HpackError(f"grpc-status is {value[1]!r}")
            return _STATUS_CODES[value]
    raise HpackError(f"no grpc-status in {block.hex()}")


def _length(value: int, prefix_bits: int, first: int) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    value -= limit
    more = bytearray([first | limit])
    while value >= 128:
        more.append(value & 127 | 128)
        value >>= 7
    return bytes((*more, value))


def _literal(first: int, prefix_bits: int, name: int | bytes, value: bytes) -> bytes:
    head = _length(name, prefix_bits, first) if isinstance(name, int) else bytes([first]) + _text_of(name)
    return head + _text_of(value)


def _text_of(value: bytes) -> bytes:
    return _length(len(value), 7, 0) + value


def literal(name: int | bytes, value: bytes) -> bytes:
    """A header that stays out of the table."""
    return _literal(0, 4, name, value)


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """What stands before each call.

    Attributes:
        path: The method.
        authority: The server.
        timeout: As gRPC writes it, such as `250m`; empty for a call without a deadline.
        scheme: `http` or `https`.
        metadata: Further ones.
    """

    path: str
    authority: str
    timeout: str = ""
    scheme: str = "http"
    metadata: Sequence[tuple[str, str]] = ()

    def blocks(self, table_bytes: int = TABLE_BYTES_DEFAULT) -> tuple[bytes, bytes]:
        """The first on a connection, which fills the server's table, and all others, which use it.

        Args:
            table_bytes: How large the server lets its table be. All that does not fit is sent each time.
        """
        fields = self._fields()
        pseudo = bytes([0x83, 0x80 | _SCHEMES[self.scheme]])  # :method POST, :scheme
        room = min(table_bytes, TABLE_BYTES_DEFAULT)
        # Whoever is told of a smaller table than it would be says that it heard (RFC 7541, 4.2).
        resized = _length(room, 5, 0x20) if room < TABLE_BYTES_DEFAULT else b""
        keep = []
        for name, value in fields:
            size = _ENTRY_BYTES + len(name) + len(value)
            keep.append(size <= room)
            room -= size * keep[-1]
        first, others, entries = [], [], sum(keep)
        for (name, value), kept in zip(fields, keep, strict=True):
            key = _STATIC.get(name, name)
            spelt = _literal(0x40, 6, key, value) if kept else literal(key, value)
            first.append(spelt)
            # The newest entry of the dynamic table has the number 62.
            others.append(_length(61 + entries, 7, 0x80) if kept else spelt)
            entries -= kept
        return resized + pseudo + b"".join(first), pseudo + b"".join(others)

    def _fields(self) -> list[tuple[bytes, bytes]]:
        return [
            (b":path", self.path.encode()),
            (b":authority", self.authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"predictd-bench"),
            (b"grpc-accept-encoding", b"identity, deflate, gzip"),
            *([(b"grpc-timeout", self.timeout.encode())] if self.timeout else []),
            *((name.encode(), value.encode()) for name, value in self.metadata),
        ]
