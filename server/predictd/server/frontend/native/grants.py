"""Tells the loop in C what callers may do that were let infer, so that it need not ask about their next requests.

Who calls, and what that lets them do, is decided by `Access` alone. What the loop remembers is taken back as a whole
whenever it may not be true any more: other tokens, another lane.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from predictd.server.frontend.native import metadata
from predictd.server.frontend.native.packing import Command, longs, numbers

if TYPE_CHECKING:
    from predictd.server.access.identity import Identity
    from predictd.server.frontend.routing import Lane

# As the C half has it.
GRANTS_MAX = 4096
_NEVER = (1 << 64) - 1
_HEADER = b"authorization"


def shown_by(fields: bytes, identity: bytes) -> bytes:
    """What shows who calls, as `credential_of` has it; empty where the loop remembers nobody by that.

    Args:
        fields: The call's metadata.
        identity: What its client's certificate says.
    """
    tokens = metadata.values(fields, _HEADER)
    if tokens:
        return hashlib.sha256(b"t" + tokens[0]).digest() if len(tokens) == 1 else b""
    return hashlib.sha256(b"c" + identity).digest() if identity else b""


class Grants:
    """The callers that the loop knows. A `Memory` of `Access`.

    Args:
        command: To the loop.
        lanes: Those that it knows, by id.
    """

    def __init__(self, command: Command, lanes: Mapping[int, Lane]) -> None:
        self._command = command
        self._lanes = lanes
        self._known: set[bytes] = set()
        command("guard", numbers(True))

    def shown(self, context: Any) -> bytes:
        """See `Memory`."""
        return shown_by(context.fields, context.identity)

    def infers(self, shown: bytes, identity: Identity) -> None:
        """See `Memory`."""
        if shown in self._known:
            return
        if len(self._known) >= GRANTS_MAX:
            self.clear()
        self._known.add(shown)
        expires = identity.expires_unix_seconds
        every = identity.has_every_model
        lanes = () if every else (lane.id for lane in self._lanes.values() if identity.may_use(lane.model))
        granted = tuple(lanes)
        self._command(
            "grant",
            shown
            + longs(_NEVER if math.isinf(expires) else int(expires * 1e9))
            + numbers(every, len(granted), *granted),
        )

    def clear(self) -> None:
        """See `Memory`."""
        if self._known:
            self._known.clear()
            self._command("grants_clear", b"")
