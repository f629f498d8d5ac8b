"""What both clients are made of, but for waiting: their options, and what they remember between calls."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from predictd.client import channel, messages, tokens
from predictd.client.connections import Connections, Owner
from predictd.client.retries import Budget, Retries
from predictd.client.tls import Credentials

if TYPE_CHECKING:
    import grpc

    from predictd.client.channel import Metadata
    from predictd.client.description import Model
    from predictd.client.tls import Tls
    from predictd.client.tokens import Token

ChannelT = TypeVar("ChannelT")

CONNECTIONS = 4


class Session:
    """What the calls of a client share.

    Attributes:
        deadline_seconds: Of a call that names none.
        budget: Of retries.
        described: Models that were looked up for a call that needed their signature, by name.
    """

    def __init__(self, deadline_seconds: float, retries: Retries, token: Token | None) -> None:
        self.deadline_seconds = messages.deadline_seconds(deadline_seconds, deadline_seconds)
        self.budget = Budget(retries)
        self.described: dict[str, Model] = {}
        self._token = token

    def metadata(self) -> Metadata:
        """What every call carries."""
        if self._token is None:
            return ()
        return (("authorization", tokens.header(self._token)),)


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
        token: Sent with each call as `authorization: Bearer …`: a string, or what makes one, such as a `TokenFile`.
        allow_plaintext_token: Send it also without TLS to another machine, where everyone on the way can read it.
        health_service: Leave out addresses that do not report this name as serving by `grpc.health.v1`: a model, or ""
            for the daemon as a whole. None asks none.

    Raises:
        OSError: A file with a certificate or a key cannot be read.
        ValueError: An option makes no sense, or the token would be sent in the clear.
    """

    def __init__(
        self,
        target: str,
        *,
        deadline: float = messages.DEADLINE_SECONDS,
        connections: int = CONNECTIONS,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        tls: Tls | None = None,
        token: Token | None = None,
        allow_plaintext_token: bool = False,
        health_service: str | None = None,
    ) -> None:
        if token is not None and tls is None and not (allow_plaintext_token or tokens.stays_here(target)):
            raise ValueError(
                f"without tls the token could be read on its way to {target!r}; allow_plaintext_token=True sends it"
            )
        self._target = target
        self._credentials = None if tls is None else Credentials(tls)
        self._arguments = channel.arguments(target, tls, health_service)
        self._session = Session(deadline, retries, token)
        self._connections = Connections(self._open, connections)

    @abstractmethod
    def _open(self) -> ChannelT:
        """Open a channel to the target."""

    def _owner(self) -> Owner:
        """Whom connections belong to: a process that was forked makes its own, and so do new certificates."""
        return Owner(os.getpid(), None, self._generation())

    def _generation(self) -> int:
        return 0 if self._credentials is None else self._credentials.generation()

    def _channel_credentials(self) -> grpc.ChannelCredentials | None:
        return None if self._credentials is None else self._credentials.pem.credentials()

    # typing.override needs Python 3.12.
    def __repr__(self) -> str:  # type: ignore[explicit-override]
        return f"{type(self).__name__}({self._target!r})"
