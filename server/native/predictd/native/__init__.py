"""The C half of predictd's fast front end; used by predictd.server where it is installed."""

from __future__ import annotations

from typing import Protocol

from predictd.native import _native

BRIDGE_VERSION: int = _native.BRIDGE_VERSION
TRANSPORT_VERSION: int = _native.TRANSPORT_VERSION


class Native(Protocol):
    """What the module `_native` does, as one object, so that tests can have another."""


native = _native
