"""Compressed messages: inflated within the limit of a message, however much they would come to.

What is small and right, and for the hot path, is inflated in C (inflate.c). Everything else comes here as it was sent.
"""

from __future__ import annotations

import zlib

from grpc import StatusCode

# For zlib: the window of its own format, and 16 more for gzip's.
WINDOW_BITS = {"deflate": zlib.MAX_WBITS, "gzip": zlib.MAX_WBITS + 16}


class UnreadableMessageError(Exception):
    """A message that cannot be had in plain.

    Attributes:
        code: The status of its call.
    """

    def __init__(self, code: StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def inflate(data: bytes, encoding: str, limit_bytes: int) -> bytes:
    """A compressed message in plain.

    Args:
        data: As it came.
        encoding: As the call's grpc-encoding says.
        limit_bytes: What it may come to.

    Raises:
        UnreadableMessageError: It is broken, or larger, or nobody knows the encoding.
    """
    if encoding == "identity":
        raise UnreadableMessageError(StatusCode.INTERNAL, "Compression bit set but no encoding configured")
    bits = WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnreadableMessageError(
            StatusCode.UNIMPLEMENTED, f"Compression algorithm '{encoding}' is disabled."
        )
    if not data:
        return data
    stream = zlib.decompressobj(bits)
    try:
        plain = stream.decompress(data, limit_bytes + 1)
    except zlib.error:
        raise _broken("zlib error") from None
    if len(plain) > limit_bytes:
        raise UnreadableMessageError(StatusCode.RESOURCE_EXHAUSTED, "Decompressed message larger than max")
    if not stream.eof:
        raise _broken("data error")
    if stream.unused_data:
        raise _broken("not all input consumed")
    return plain


def _broken(reason: str) -> UnreadableMessageError:
    return UnreadableMessageError(StatusCode.INTERNAL, f"Decompression failed due to {reason}")
