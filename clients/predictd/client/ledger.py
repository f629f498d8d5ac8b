"""What a stream owes: which answer belongs to whom. No I/O."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from predictd.client import errors, wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from predictd.protos.v1 import predictd_pb2 as v1


class Future(Protocol):
    """What asyncio's futures and those of threads have in common."""

    def set_result(self, result: Any, /) -> None:
        """Wake who waits with the answer."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Wake who waits with an error."""

    def done(self) -> bool:
        """Nobody waits any more."""


class Ledger:
    """The requests of one stream that have no answer yet, by the ids that they travel with."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owed: dict[str, Future] = {}
        self._count = 0
        self._over: errors.PredictdError | None = None

    @property
    def is_over(self) -> bool:
        """The stream ended; it takes no more requests."""
        return self._over is not None

    def add(self, parts: wire.Parts, future: Future, send: Callable[[bytes], None]) -> str:
        """Send a request, whose answer goes to the future. Returns its id."""
        with self._lock:
            request_id = str(self._count)
            self._count += 1
            if self._over is not None:
                future.set_exception(self._over)
            else:
                self._owed[request_id] = future
                send(wire.with_id(parts, request_id))
        return request_id

    def settle(self, message: v1.PredictStreamResponse, answer: wire.Answer | None) -> None:
        """An answer came. Raises InternalError if nothing waited for it: then no answer can be trusted."""
        with self._lock:
            future = self._owed.pop(message.id, None)
        if future is None:
            raise errors.InternalError(
                f"the daemon answered id {message.id!r}, which nothing waits for", grpc.StatusCode.INTERNAL
            )
        if future.done():
            return  # Who asked has gone.
        if answer is None:
            future.set_exception(errors.from_message(message.error))
        else:
            future.set_result(answer)

    def end(self, error: errors.PredictdError | None) -> None:
        """The stream ended, in order if there is no error. What it still owed was not accepted, or is lost."""
        with self._lock:
            owed, self._owed = self._owed, {}
            self._over = error or errors.UnavailableError(
                "the daemon ended the stream before it answered", grpc.StatusCode.UNAVAILABLE
            )
        for future in owed.values():
            if not future.done():
                future.set_exception(self._over)
