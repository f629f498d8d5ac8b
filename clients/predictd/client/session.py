"""What both clients are made of, but for waiting: their options, and what they remember between calls."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from predictd.client import channel, messages
from predictd.client.connections import Connections
from predictd.client.retries import Budget, Retries

if TYPE_CHECKING:
    from collections.abc import Callable

    from predictd.client.channel import Metadata, Tls
    from predictd.client.description import Model

ChannelT = TypeVar("ChannelT")

CONNECTIONS = 4


class Session:
    """What the calls of a client share.

    Attributes:
        deadline_seconds: Of a call that names none.
        budget: Of retries.
        described: Models that were looked up for a call that needed their signature, by name.
    """

    def __init__(
        self, deadline_seconds: float, retries: Retries, token: str | Callable[[], str] | None
    ) -> None:
        self.deadline_seconds = messages.deadline_seconds(deadline_seconds, deadline_seconds)
        self.budget = Budget(retries)
        self.described: dict[str, Model] = {}
        self._token = token

    def metadata(self) -> Metadata:
        """What every call carries."""
        if self._token is None:
            return ()
        token = self._token if isinstance(self._token, str) else self._token()
        return (("authorization", f"Bearer {token}"),)


class BaseClient(ABC, Generic[ChannelT]):
    """Connections to a daemon.

    Args:
        target: `host:port`, `unix:///path`, or another gRPC target. Where a name has several addresses, calls go to
            them in turn.
        deadline: Seconds that a call may take, retries included, unless it says otherwise.
        connections: How many there may be; each sits on one of the daemon's front ends. More than one are opened
            only while calls overlap.
        retries: When a call that failed is made again; `NO_RETRIES` for never.
        tls: How to encrypt; None does not.
        token: Sent with each call as `authorization: Bearer …`: a string, or what makes one.
        health_service: Leave out addresses that do not report this name as serving by `grpc.health.v1`: a model, or ""
            for the daemon as a whole. None asks none.
    """

    def __init__(
        self,
        target: str,
        *,
        deadline: float = messages.DEADLINE_SECONDS,
        connections: int = CONNECTIONS,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        tls: Tls | None = None,
        token: str | Callable[[], str] | None = None,
        health_service: str | None = None,
    ) -> None:
        self._target = target
        self._tls = tls
        self._arguments = channel.arguments(tls, health_service)
        self._session = Session(deadline, retries, token)
        self._connections = Connections(self._open, connections, self._owner())

    @abstractmethod
    def _open(self) -> ChannelT:
        """Open a channel to the target."""

    def _owner(self) -> object:
        """Whom connections belong to: a process that was forked makes its own."""
        return os.getpid()

    # typing.override needs Python 3.12.
    def __repr__(self) -> str:  # type: ignore[explicit-override]
        return f"{type(self).__name__}({self._target!r})"
