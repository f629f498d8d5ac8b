"""The thin shell around pure adapters: from bytes and a call's context to a handler gRPC can register."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from predictd.server.access.methods import RULES
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.heading import from_metadata
from predictd.server.frontend.limits import check_message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from predictd.server.frontend.core import Core
    from predictd.server.frontend.heading import Heading, Read
    from predictd.server.frontend.status import StatusTable

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
# A deadline this far away is none. Some clients send the longest time that they can write, and its end in
# nanoseconds is beyond 64 bits.
_FOREVER_SECONDS = 1e9
MESSAGE_BYTES_MAX = 2**31 - 1
# A smaller request is parsed as fast as it is looked at.
SCANNED_BYTES = 16 * 1024

MessageT = TypeVar("MessageT", bound=Message)


def service(name: str, methods: dict[str, Handler]) -> grpc.GenericRpcHandler:
    """A service for gRPC.

    Args:
        name: With its package.
        methods: By name.

    Raises:
        TypeError: A method has no rule that says who may call it.
    """
    for method in methods:
        if f"/{name}/{method}" not in RULES:
            raise TypeError(
                f"/{name}/{method} is in no rule of predictd.server.access.methods. This is a bug."
            )
    return grpc.method_handlers_generic_handler(name, methods)


def parse(kind: type[MessageT], data: bytes) -> MessageT:
    """Parse a message.

    Raises:
        InvalidRequestError: The bytes are no such message, or one of which too much would become.
    """
    check_message(data, kind)
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequestError(f"the request is not a valid {kind.DESCRIPTOR.full_name} message") from None


def deadline_ns(context: Context) -> int:
    """The call's deadline in CLOCK_MONOTONIC nanoseconds, 0 if it has none."""
    # The stubs forget that a call without a deadline has None here.
    remaining_seconds: float | None = context.time_remaining()
    if remaining_seconds is None or remaining_seconds > _FOREVER_SECONDS:
        return 0
    return time.monotonic_ns() + int(remaining_seconds * 1e9)


def fitting(message: bytes, limit_bytes: int) -> bytes:
    """An encoded answer, unless it is too large.

    gRPC would end the call without a word about why, and a stream together with all that is in flight on it.

    Raises:
        InvalidRequestError: It is larger than a message may be.
    """
    if len(message) > limit_bytes:
        raise InvalidRequestError(
            f"the answer has {len(message)} bytes and a message may have {limit_bytes} (max_message_size); "
            "ask for fewer rows or outputs"
        )
    return message


async def abort(context: Context, error: Exception, statuses: StatusTable) -> NoReturn:
    """End a call with the status of a failure."""
    failure = statuses.failure(error)
    await context.abort(failure.code, failure.message, failure.trailers)


def glance(data: bytes, core: Core, heading: Read) -> Heading | None:
    """What a request is for, where it may have to be refused before it is parsed."""
    return heading(data) if len(data) >= SCANNED_BYTES and core.pressed else None


def inference(
    answer: Callable[[bytes, int], Awaitable[bytes]],
    statuses: StatusTable,
    core: Core,
    api: str,
    heading: Read,
) -> Handler:
    """A handler of one request and one answer that refuses what it can before the request is received or parsed.

    To the client it is a unary method; to gRPC it is one of many requests, which are read when the handler asks.

    Args:
        answer: From the request's bytes and its deadline to the answer's. What it raises becomes the call's status.
        statuses: Of the protocol.
        core: Knows what would be refused.
        api: The protocol's name.
        heading: What a request is for.
    """

    async def handle(_: object, context: Context) -> bytes:  # noqa: RET503 - abort raises
        data: object = None
        try:
            deadline = deadline_ns(context)
            if core.pressed:
                core.check_unread(from_metadata(context.invocation_metadata()), api, deadline)
            data = await core.uploads.read(context)
            if not isinstance(data, bytes):
                raise InvalidRequestError("the call ended without a request")
            if found := glance(data, core, heading):
                core.check_unparsed(found, api, deadline)
            return await answer(data, deadline)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status
            failure = statuses.failure(error)
        # As in `unary`.
        del data
        await context.abort(failure.code, failure.message, failure.trailers)

    return grpc.stream_unary_rpc_method_handler(handle)


def unary(answer: Callable[[bytes, Context], Awaitable[bytes]], statuses: StatusTable) -> Handler:
    """A handler of one request and one answer.

    Args:
        answer: From the request's bytes to the answer's. What it raises becomes the call's status.
        statuses: Of the protocol.
    """

    async def handle(data: bytes, context: Context) -> bytes:  # noqa: RET503 - abort raises
        try:
            return await answer(data, context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status
            failure = statuses.failure(error)
        # Only now: gRPC keeps the exception that ends a call in a ring with its frames, and the request must not be
        # in any of them.
        del data
        await context.abort(failure.code, failure.message, failure.trailers)

    return grpc.unary_unary_rpc_method_handler(handle)
