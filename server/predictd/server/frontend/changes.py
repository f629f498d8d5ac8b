"""Changes of labels and splits that clients ask for: passed to the supervisor, who decides and answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from predictd.server.control.commands import SetLabel, SetSplit
from predictd.server.control.message import Message
from predictd.server.control.outcomes import failure
from predictd.server.errors import InvalidRequestError, ModelUnavailableError, UnknownModelError
from predictd.server.repository.traffic import TrafficError, check_shape, check_shares

# The supervisor answers sooner, with what it knows by then.
TIMEOUT_SECONDS = 10.0
# A message between processes has a bound, and no folder has a longer name.
MODEL_NAME_MAX = 1024


class Changes:
    """Asks the supervisor for changes. On return every front end routes the new way."""

    def __init__(self, send: Callable[[Message, list[int]], None]) -> None:
        self._send = send
        self._sequence = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[str, str]]] = {}

    async def set_label(self, model: str, label: str, version: int | None, *, allow_unready: bool) -> None:
        """Give a version a label; None takes back what was set at run time. Raises RequestError."""
        _check(model)
        _refusing(lambda: check_shape(label))
        seq = next(self._sequence)
        await self._ask(
            seq,
            SetLabel(seq=seq, model=model, label=label, version=version, allow_unready=allow_unready),
        )

    async def set_split(self, model: str, shares: Sequence[tuple[int, int]], *, allow_unready: bool) -> None:
        """Divide the requests that name neither version nor label; no shares no longer do. Raises RequestError."""
        _check(model)
        _refusing(lambda: check_shares(shares))
        seq = next(self._sequence)
        await self._ask(seq, SetSplit(seq=seq, model=model, split=tuple(shares), allow_unready=allow_unready))

    async def _ask(self, seq: int, message: SetLabel | SetSplit) -> None:
        done: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting[seq] = done
        self._send(message, [])
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status, text = await done
        except TimeoutError:
            raise ModelUnavailableError("the supervisor does not say whether the change was made") from None
        finally:
            del self._waiting[seq]
        if status:
            raise failure(status, text)

    def on_done(self, seq: int, status: str, message: str) -> None:
        """The supervisor's answer."""
        waiting = self._waiting.get(seq)
        if waiting is not None and not waiting.done():
            waiting.set_result((status, message))


def _check(model: str) -> None:
    if not model:
        raise InvalidRequestError("the request names no model")
    if len(model) > MODEL_NAME_MAX:
        raise UnknownModelError(f"no model has a name of {len(model)} characters")


def _refusing(check: Callable[[], None]) -> None:
    try:
        check()
    except TrafficError as error:
        raise failure(error.status, str(error)) from None
