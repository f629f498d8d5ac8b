"""What a front end is told first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from predictd.server.access.rules import AccessRules
from predictd.server.config.connections import ConnectionRules
from predictd.server.config.request_log import RequestLogRule
from predictd.server.config.settings import Settings
from predictd.server.control.messages import FrontendInit
from predictd.server.supervise.carrier import carrier, native_problem
from predictd.server.supervise.pool import Place
from predictd.server.supervise.ports import ReservedPort, is_private


@dataclass(frozen=True, slots=True)
class FrontendSettings:
    """What every front end is told."""

    native: bool
    addresses: Sequence[str]
    unix: Path | None
    arena_limit_bytes: int
    arena_keep_ns: int
    unread_limit_bytes: int
    upload_limit_bytes: int
    max_message_bytes: int
    max_response_bytes: int
    max_concurrent_per_client: int
    connections: ConnectionRules
    tfs_tensor_content: bool
    access: AccessRules
    shape_secret: bytes
    request_log: RequestLogRule
    log_level: str
    environment: Mapping[str, str]


def frontend_settings(settings: Settings, port: ReservedPort, arena_limit_bytes: int) -> FrontendSettings:
    """What the daemon's settings say to every front end."""
    return FrontendSettings(
        native=carrier(settings.frontend, native_problem()).native,
        addresses=port.targets,
        unix=None if settings.unix is None else settings.unix.absolute(),
        arena_limit_bytes=arena_limit_bytes,
        arena_keep_ns=settings.arena_keep_ns,
        unread_limit_bytes=settings.unread_limit_bytes,
        upload_limit_bytes=upload_limit_bytes(settings, arena_limit_bytes),
        max_message_bytes=settings.max_message_bytes,
        max_response_bytes=settings.max_response_bytes,
        max_concurrent_per_client=settings.max_concurrent_per_client,
        connections=settings.connections,
        tfs_tensor_content=settings.tfs_tensor_content,
        access=access_rules(settings, port),
        shape_secret=os.urandom(16),
        request_log=settings.request_log,
        log_level=settings.log_level,
        environment=dict(os.environ),
    )


def access_rules(settings: Settings, port: ReservedPort) -> AccessRules:
    """Who is let in where gRPC listens."""
    return AccessRules(
        tls=settings.tls_certificate is not None,
        tokens=settings.tokens is not None,
        client_certificates=settings.tls_client_ca is not None,
        private=is_private(port),
        allow_control=settings.allow_control,
    )


def upload_limit_bytes(settings: Settings, arena_limit_bytes: int) -> int:
    """The limit for messages that are being received: room for two of the largest ones in any case, unless told."""
    if settings.upload_limit_bytes is not None:
        return settings.upload_limit_bytes
    return max(arena_limit_bytes // 4, 2 * settings.max_message_bytes)


def frontend_init(settings: FrontendSettings, place: Place, frontend: int, frontends: int) -> FrontendInit:
    """The first message to a front end.

    Args:
        settings: Of all front ends.
        place: That it takes.
        frontend: Its id.
        frontends: How many there are.
    """
    assert place.pipe is not None  # noqa: S101 - made before the child is started
    return FrontendInit(
        frontend=frontend,
        index=place.index,
        frontends=frontends,
        native=settings.native,
        addresses=list(settings.addresses),
        # The path is one process's: what binds it takes it from whoever had it.
        unix=str(settings.unix) if settings.unix is not None and place.index == 0 else "",
        in_flight_limit=place.pipe.records // 2,
        arena_limit_bytes=settings.arena_limit_bytes,
        arena_keep_ns=settings.arena_keep_ns,
        unread_limit_bytes=settings.unread_limit_bytes,
        upload_limit_bytes=settings.upload_limit_bytes,
        max_message_bytes=settings.max_message_bytes,
        max_response_bytes=settings.max_response_bytes,
        max_concurrent_per_client=settings.max_concurrent_per_client,
        connections=settings.connections,
        tfs_tensor_content=settings.tfs_tensor_content,
        access=settings.access,
        shape_secret=settings.shape_secret,
        request_log=settings.request_log.share(frontends),
        log_level=settings.log_level,
    )
