"""google.rpc.Status with a RetryInfo, as gRPC clients find it in the trailers of a refused call.

Three messages of which four fields are set, in a format that is frozen: written by hand, so that the server needs no
further package for them, whose symbols would be registered beside those of everybody who imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

if TYPE_CHECKING:
    from grpc import StatusCode

STATUS_DETAILS = "grpc-status-details-bin"
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_CODE = b"\x08"  # Field 1, a number.
_FIRST = b"\x0a"  # Field 1 with a length, of RetryInfo: retry_delay.
_MESSAGE = b"\x12"  # Field 2 with a length.
_DETAILS = b"\x1a"  # Field 3 with a length.


def with_retry_info(code: StatusCode, message: str, retry_after_seconds: float) -> bytes:
    """An encoded google.rpc.Status that says when to try again."""
    seconds, nanos = divmod(round(retry_after_seconds * 1e9), 10**9)
    delay = Duration(seconds=seconds, nanos=nanos).SerializeToString()
    detail = Any(type_url=_RETRY_INFO, value=_field(_FIRST, delay)).SerializeToString()
    number, _ = code.value
    return _CODE + bytes((number,)) + _field(_MESSAGE, message.encode()) + _field(_DETAILS, detail)


def _field(tag: bytes, content: bytes) -> bytes:
    length = len(content)
    encoded = bytearray(tag)
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + content
