"""The thin shell around pure adapters: from bytes and a call's context to a handler gRPC can register."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from predictd.server.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from predictd.server.frontend.status import StatusTable

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
MessageT = TypeVar("MessageT", bound=Message)


def parse(kind: type[MessageT], data: bytes) -> MessageT:
    """Parse a message.

    Raises:
        InvalidRequestError: The bytes are no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequestError(f"the request is not a valid {kind.DESCRIPTOR.full_name} message") from None


def deadline_ns(context: Context) -> int:
    """The call's deadline in CLOCK_MONOTONIC nanoseconds, 0 if it has none."""
    # The stubs forget that a call without a deadline has None here.
    remaining_seconds: float | None = context.time_remaining()
    if remaining_seconds is None:
        return 0
    return time.monotonic_ns() + int(remaining_seconds * 1e9)


async def abort(context: Context, error: Exception, statuses: StatusTable) -> NoReturn:
    """End a call with the status of a failure."""
    failure = statuses.failure(error)
    await context.abort(failure.code, failure.message, failure.trailers)


def unary(answer: Callable[[bytes, Context], Awaitable[bytes]], statuses: StatusTable) -> Handler:
    """A handler of one request and one answer.

    Args:
        answer: From the request's bytes to the answer's. What it raises becomes the call's status.
        statuses: Of the protocol.
    """

    async def handle(data: bytes, context: Context) -> bytes:
        try:
            return await answer(data, context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status
            await abort(context, error, statuses)

    return grpc.unary_unary_rpc_method_handler(handle)
