"""What a front end is told first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from predictd.server.config.connections import ConnectionRules
from predictd.server.config.settings import Settings
from predictd.server.control.messages import FrontendInit
from predictd.server.supervise.pool import Place
from predictd.server.supervise.ports import ReservedPort, is_private


@dataclass(frozen=True, slots=True)
class FrontendSettings:
    """What every front end is told."""

    addresses: Sequence[str]
    arena_limit_bytes: int
    arena_keep_ns: int
    unread_limit_bytes: int
    max_message_bytes: int
    max_response_bytes: int
    max_concurrent_per_client: int
    connections: ConnectionRules
    tfs_tensor_content: bool
    allow_control: bool
    shape_secret: bytes
    log_level: str
    environment: Mapping[str, str]


def frontend_settings(settings: Settings, port: ReservedPort, arena_limit_bytes: int) -> FrontendSettings:
    """What the daemon's settings say to every front end."""
    return FrontendSettings(
        addresses=port.targets,
        arena_limit_bytes=arena_limit_bytes,
        arena_keep_ns=settings.arena_keep_ns,
        unread_limit_bytes=settings.unread_limit_bytes,
        max_message_bytes=settings.max_message_bytes,
        max_response_bytes=settings.max_response_bytes,
        max_concurrent_per_client=settings.max_concurrent_per_client,
        connections=settings.connections,
        tfs_tensor_content=settings.tfs_tensor_content,
        allow_control=settings.allow_control or is_private(port),
        shape_secret=os.urandom(16),
        log_level=settings.log_level,
        environment=dict(os.environ),
    )


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
        addresses=list(settings.addresses),
        in_flight_limit=place.pipe.records // 2,
        arena_limit_bytes=settings.arena_limit_bytes,
        arena_keep_ns=settings.arena_keep_ns,
        unread_limit_bytes=settings.unread_limit_bytes,
        max_message_bytes=settings.max_message_bytes,
        max_response_bytes=settings.max_response_bytes,
        max_concurrent_per_client=settings.max_concurrent_per_client,
        connections=settings.connections,
        tfs_tensor_content=settings.tfs_tensor_content,
        allow_control=settings.allow_control,
        shape_secret=settings.shape_secret,
        log_level=settings.log_level,
    )
