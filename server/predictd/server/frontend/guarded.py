"""What adapters may ask of the front end, for the present call's caller: with the models that are its own.

A model that is not the caller's is refused before anybody looks whether it exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from predictd.server.access.identity import Role
from predictd.server.control.commands import Command, ListedModel
from predictd.server.control.message import Message
from predictd.server.frontend.access import Access
from predictd.server.frontend.changes import Changes
from predictd.server.frontend.control import Control
from predictd.server.frontend.core import Core
from predictd.server.frontend.heading import Heading
from predictd.server.frontend.inference import (
    InferRequest,
    InferResponse,
    LaneStatistics,
    ModelInfo,
    VersionInfo,
)
from predictd.server.frontend.pending import Pending, Reply
from predictd.server.frontend.uploads import Uploads


class GuardedCore:
    """A Core (see there) that knows only what its callers may.

    Args:
        core: That knows everything.
        access: Knows who calls.
    """

    def __init__(self, core: Core, access: Access) -> None:
        self._core = core
        self._access = access

    async def infer(self, request: InferRequest, api: str, deadline_ns: int) -> InferResponse:
        """See `Core`. Raises ForbiddenError for a model that is not the caller's."""
        self._access.require(Role.INFER, request.model)
        return await self._core.infer(request, api, deadline_ns)

    def begin(self, request: InferRequest, api: str, deadline_ns: int, reply: Reply) -> Pending | None:
        """See `Core`. Raises ForbiddenError for a model that is not the caller's."""
        self._access.require(Role.INFER, request.model)
        return self._core.begin(request, api, deadline_ns, reply)

    @property
    def uploads(self) -> Uploads:
        """See `Core`."""
        return self._core.uploads

    @property
    def pressed(self) -> bool:
        """See `Core`."""
        return self._core.pressed

    @property
    def ready(self) -> bool:
        """See `Core`."""
        return self._core.ready

    def check_unread(self, heading: Heading, api: str, deadline_ns: int) -> None:
        """See `Core`. A refusal names a model, so it needs to be one of the caller's."""
        if heading.model:
            self._access.require(Role.INFER, heading.model)
        elif not self._access.sees(None):
            return
        self._core.check_unread(heading, api, deadline_ns)

    def check_unparsed(self, heading: Heading, api: str, deadline_ns: int) -> None:
        """See `Core`."""
        self._access.require(Role.INFER, heading.model)
        self._core.check_unparsed(heading, api, deadline_ns)

    def models(self) -> Sequence[ModelInfo]:
        """Those that the caller may use."""
        return [model for model in self._core.models() if self._access.sees(model.name)]

    def model(self, name: str) -> ModelInfo:
        """See `Core`."""
        self._access.require_model(name)
        return self._core.model(name)

    def version(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        """See `Core`."""
        self._access.require_model(name)
        return self._core.version(name, version, label)

    def draw(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        """See `Core`."""
        self._access.require_model(name)
        return self._core.draw(name, version, label)

    async def statistics(self) -> Sequence[LaneStatistics]:
        """Those of the models that the caller may use."""
        return [lane for lane in await self._core.statistics() if self._access.sees(lane.model)]


class GuardedControl(Control):
    """Commands of those who may give them.

    Args:
        send: To the supervisor.
        access: Knows who calls.
    """

    def __init__(self, send: Callable[[Command], None], access: Access) -> None:
        super().__init__(send)
        self._access = access

    @property
    def allowed(self) -> bool:  # type: ignore[explicit-override]
        return self._access.has_role(Role.CONTROL)

    async def load(self, model: str, config: str = "") -> None:  # type: ignore[explicit-override]
        self._access.require(Role.CONTROL, model)
        await super().load(model, config)

    async def unload(self, model: str) -> None:  # type: ignore[explicit-override]
        self._access.require(Role.CONTROL, model)
        await super().unload(model)

    async def reload(self) -> None:  # type: ignore[explicit-override]
        self._access.require(Role.CONTROL)
        await super().reload()

    async def serve(self, models: Sequence[ListedModel]) -> None:  # type: ignore[explicit-override]
        self._access.require(Role.CONTROL)
        await super().serve(models)

    async def set_log_level(self, level: str) -> None:  # type: ignore[explicit-override]
        self._access.require(Role.CONTROL)
        await super().set_log_level(level)


class GuardedChanges(Changes):
    """Changes of those who may make them.

    Args:
        send: To the supervisor.
        access: Knows who calls.
    """

    def __init__(self, send: Callable[[Message, list[int]], None], access: Access) -> None:
        super().__init__(send)
        self._access = access

    async def set_label(  # type: ignore[explicit-override]
        self, model: str, label: str, version: int | None, *, allow_unready: bool
    ) -> None:
        self._access.require(Role.CONTROL, model)
        await super().set_label(model, label, version, allow_unready=allow_unready)

    async def set_split(  # type: ignore[explicit-override]
        self, model: str, shares: Sequence[tuple[int, int]], *, allow_unready: bool
    ) -> None:
        self._access.require(Role.CONTROL, model)
        await super().set_split(model, shares, allow_unready=allow_unready)
