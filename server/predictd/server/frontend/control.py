"""Commands of operators, on their way from an API to the supervisor and back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from predictd.server.control.commands import (
    Command,
    CommandDone,
    ListedModel,
    LoadModel,
    Reload,
    ServeList,
    SetLogLevel,
    UnloadModel,
)
from predictd.server.control.outcomes import failure
from predictd.server.errors import InvalidRequestError

# All of a command must fit a message of the control channel.
_TEXT_BYTES_MAX = 64 * 1024


class Control:
    """Sends commands to the supervisor and waits for what becomes of them.

    A caller that stops waiting does not undo its command.

    Args:
        send: To the supervisor.
    """

    def __init__(self, send: Callable[[Command], None]) -> None:
        self._send = send
        self._sequence = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[CommandDone]] = {}

    @property
    def allowed(self) -> bool:
        """Whoever asks may give commands."""
        return True

    async def load(self, model: str, config: str = "") -> None:
        """Load a model as it is on disk now, again if it failed; done once it is served.

        Args:
            model: Its name.
            config: JSON that overrides its configuration.

        Raises:
            RequestError: It cannot be loaded; its class says why.
        """
        _require_name(model)
        await self._ask(LoadModel(seq=next(self._sequence), model=model, config=config), model, config)

    async def unload(self, model: str) -> None:
        """Unload a model; done once its requests are finished. Raises RequestError."""
        _require_name(model)
        await self._ask(UnloadModel(seq=next(self._sequence), model=model), model)

    async def reload(self) -> None:
        """Look at the disk now; done once all that is new is loaded. Raises RequestError if some of it failed."""
        await self._ask(Reload(seq=next(self._sequence)))

    async def serve(self, models: Sequence[ListedModel]) -> None:
        """Serve the models of a list and no others. Raises RequestError."""
        command = ServeList(seq=next(self._sequence), models=list(models))
        await self._ask(
            command,
            *(text for each in models for text in (each.name, each.base_path, each.config, *each.labels)),
        )

    async def set_log_level(self, level: str) -> None:
        """Have all processes log from this level on; done once they do. Raises RequestError."""
        await self._ask(SetLogLevel(seq=next(self._sequence), level=level))

    def done(self, message: CommandDone) -> None:
        """The supervisor's answer."""
        waiting = self._waiting.get(message.seq)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def _ask(self, command: Command, *texts: str) -> None:
        # A few bytes beside each text say how long it is.
        size_bytes = sum(len(text.encode()) + 16 for text in texts)
        if size_bytes > _TEXT_BYTES_MAX:
            raise InvalidRequestError(f"the command has {size_bytes} bytes and may have {_TEXT_BYTES_MAX}")
        answer: asyncio.Future[CommandDone] = asyncio.get_running_loop().create_future()
        self._waiting[command.seq] = answer
        try:
            self._send(command)
            outcome = await answer
        finally:
            del self._waiting[command.seq]
        if outcome.status:
            raise failure(outcome.status, outcome.message)


def _require_name(model: str) -> None:
    if not model:
        raise InvalidRequestError("the request names no model")
