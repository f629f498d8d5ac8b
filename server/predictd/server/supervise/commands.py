"""Carrying out what operators ask for over the network: load, unload, reload."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from predictd.server.config.model_config import ModelConfig
from predictd.server.control.commands import (
    Command,
    CommandDone,
    ListedModel,
    LoadModel,
    Reload,
    ServeList,
    UnloadModel,
)
from predictd.server.control.message import Message
from predictd.server.control.outcomes import status_of
from predictd.server.errors import (
    FailedPreconditionError,
    InvalidRequestError,
    ModelUnavailableError,
    RequestError,
    UnknownModelError,
)
from predictd.server.repository.override import read_override
from predictd.server.supervise.catalog import LaneRecord
from predictd.server.supervise.loads import LoadJournal

_log = logging.getLogger(__name__)


class Wants(Protocol):
    """What commands ask of the keeper; `predictd.server.supervise.keeper` says what each means."""

    @property
    def explicit(self) -> bool: ...

    @property
    def names(self) -> set[str]: ...

    async def take(
        self, overrides: Mapping[str, ModelConfig], base_paths: Mapping[str, str] | None = None
    ) -> None: ...

    async def leave(self, names: Collection[str]) -> set[int]: ...

    async def look_until_settled(self) -> list[str]: ...

    async def is_there(self, name: str) -> bool: ...

    def wanted_lanes(self, name: str) -> list[LaneRecord | None]: ...


class Surroundings(Protocol):
    """What commands ask of the supervisor."""

    @property
    def settled(self) -> bool:
        """Everything of the start is loaded or has failed."""

    @property
    def draining(self) -> bool:
        """The daemon leaves."""

    async def wait(self, condition: Callable[[], bool], timeout_seconds: float | None = None) -> bool:
        """Wait until a condition on the supervisor's state holds."""

    def has_lane(self, lane: int) -> bool:
        """Whether a lane is still there."""


class Commands:
    """Answers commands, each once it took effect.

    Args:
        keeper: Owns what is wanted.
        around: The supervisor.
        told: Waits until front ends have taken in what they were sent.
        label: Makes labels by model all that each has of what was set at run time; raises RequestError.
        journal: Keeps what was loaded and unloaded.
        public: Makes of a text what clients may see of it.
    """

    def __init__(
        self,
        keeper: Wants,
        around: Surroundings,
        told: Callable[[], Awaitable[None]],
        label: Callable[[Mapping[str, Mapping[str, int]]], Awaitable[None]],
        journal: LoadJournal,
        public: Callable[[str], str] = str,
    ) -> None:
        self._keeper = keeper
        self._around = around
        self._told = told
        self._label = label
        self._journal = journal
        self._public = public

    async def answer(self, command: Command, send: Callable[[Message], None]) -> None:
        """Carry a command out, and say what became of it."""
        try:
            await self._until(lambda: self._around.settled)
            await self._carry_out(command)
            # Whoever has the answer may ask another front end, which must know by then.
            await self._told()
        except RequestError as error:
            _log.warning("%s refused: %s", type(command).__name__, error)
            send(CommandDone(seq=command.seq, status=status_of(error), message=self._public(str(error))))
        else:
            send(CommandDone(seq=command.seq))

    async def _carry_out(self, command: Command) -> None:
        match command:
            case LoadModel(model=model, config=config):
                await self._keeper.take({model: read_override(config, model)})
                await self._loaded([model])
                await self._keep_loaded({model: config})
            case UnloadModel(model=model):
                await self._unload(model)
            case Reload():
                await self._reload()
            case ServeList(models=models):
                await self._serve(models)

    async def _loaded(self, models: Collection[str]) -> None:
        """Wait until all that is wanted of some models is ready, or something of it failed."""

        def lanes() -> list[LaneRecord | None]:
            return [lane for model in models for lane in self._keeper.wanted_lanes(model)]

        def done() -> bool:
            states = [lane.state if lane else "LOADING" for lane in lanes()]
            return "FAILED" in states or all(state == "READY" for state in states)

        await self._until(done)
        self._raise_failure(lanes())
        for model in models:
            if not self._keeper.wanted_lanes(model):
                raise ModelUnavailableError(f"model {model!r} was unloaded while it was loaded")

    def _raise_failure(self, lanes: Collection[LaneRecord | None]) -> None:
        for lane in lanes:
            if lane is not None and lane.state == "FAILED":
                version, model = lane.config.version, lane.config.model
                raise FailedPreconditionError(f"version {version} of model {model!r} failed: {lane.reason}")

    async def _unload(self, model: str) -> None:
        self._demand_explicit(f"model {model!r}")
        if model not in self._keeper.names and not await self._keeper.is_there(model):
            raise UnknownModelError(f"there is no model {model!r}")
        await self._leave([model])

    async def _keep_loaded(self, configs: Mapping[str, str]) -> None:
        # Where the disk decides what is loaded, a command is for this time only.
        if self._keeper.explicit:
            await self._journal.loaded(configs)

    async def _leave(self, models: Collection[str]) -> None:
        if models:
            await self._journal.unloaded(models)
        lanes = await self._keeper.leave(models)
        await self._until(lambda: not any(map(self._around.has_lane, lanes)))

    def _demand_explicit(self, what: str) -> None:
        if not self._keeper.explicit:
            raise ModelUnavailableError(
                f"{what} cannot be unloaded by command: what is on disk is served. To choose by command, start the "
                "daemon with --model-control explicit"
            )

    async def _reload(self) -> None:
        before = {lane.config.lane for lane in self._lanes() if lane}
        broken = await self._keeper.look_until_settled()
        await self._until(lambda: all(lane and lane.state != "LOADING" for lane in self._lanes()))
        self._raise_failure([lane for lane in self._lanes() if lane and lane.config.lane not in before])
        if broken:
            raise FailedPreconditionError("; ".join(broken))

    def _lanes(self) -> list[LaneRecord | None]:
        return [lane for name in self._keeper.names for lane in self._keeper.wanted_lanes(name)]

    async def _serve(self, models: Collection[ListedModel]) -> None:
        """Serve the models of a list and no others. Nothing is unloaded before all of the list is ready."""
        overrides = {model.name: read_override(model.config, model.name) for model in models}
        if len(overrides) < len(models):
            raise InvalidRequestError("the list has a model twice")
        others = sorted(self._keeper.names - overrides.keys())
        if others:
            self._demand_explicit(f"model {others[0]!r}, which is not in the list,")
        try:
            await self._keeper.take(overrides, {model.name: model.base_path for model in models})
        except UnknownModelError as error:
            raise InvalidRequestError(str(error)) from None
        await self._loaded(overrides.keys())
        await self._label({model.name: model.labels for model in models})
        await self._keep_loaded({model.name: model.config for model in models})
        await self._leave(others)

    async def _until(self, condition: Callable[[], bool]) -> None:
        await self._around.wait(lambda: self._around.draining or condition())
        if self._around.draining:
            raise ModelUnavailableError("the server is shutting down")
