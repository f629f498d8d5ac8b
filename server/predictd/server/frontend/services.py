"""All services of a front end, each made of the parts that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from predictd.server.control.messages import FrontendInit
from predictd.server.frontend.apis import (
    control_v1,
    health,
    oip,
    predictd_v1,
    reflection,
    routing_v1,
    tfs,
)
from predictd.server.frontend.apis.streams import Streams
from predictd.server.frontend.changes import Changes
from predictd.server.frontend.control import Control
from predictd.server.frontend.core import Core
from predictd.server.frontend.unread import Bounded, Unread

SERVICES = (predictd_v1.SERVICE, routing_v1.SERVICE, control_v1.SERVICE, oip.SERVICE, *tfs.SERVICES)


@dataclass(frozen=True, slots=True)
class Parts:
    """What services ask.

    Attributes:
        core: Answers requests.
        streams: Keeps the open ones.
        control: Carries commands out.
        changes: Changes routes.
        health: Says how the daemon is.
        unread: Counts what clients have not read.
    """

    core: Core
    streams: Streams
    control: Control
    changes: Changes
    health: health.Health
    unread: Unread


def services(init: FrontendInit, parts: Parts) -> Iterator[grpc.GenericRpcHandler]:
    """The services, with what the supervisor said of them."""
    limit, core, control = init.max_message_bytes, parts.core, parts.control
    for service in (
        predictd_v1.handlers(core, parts.streams, limit),
        oip.handlers(core, parts.streams, limit, control),
        *tfs.handlers(core, limit, tensor_content=init.tfs_tensor_content, control=control),
    ):
        yield Bounded(service, parts.unread)
    yield routing_v1.handlers(parts.changes)
    yield control_v1.handlers(control)
    yield parts.health.handlers()
    yield reflection.handlers((*SERVICES, health.SERVICE))
