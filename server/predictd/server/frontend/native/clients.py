"""How many requests one client may have at once, where the loop in C counts them, Python's among them."""

from __future__ import annotations

import struct

from typing_extensions import override

from predictd.server.frontend.clients import ClientLimit
from predictd.server.frontend.native.packing import Command, numbers

_COUNT = struct.Struct("<I")
_ENTERED = b"\1"


class SharedClientLimit(ClientLimit):
    """Counts requests in flight by client, in both halves.

    Args:
        command: To the loop.
        limit: Requests of one client; 0 counts nothing.
    """

    def __init__(self, command: Command, limit: int) -> None:
        super().__init__(limit)
        self._command = command
        command("client_limit", numbers(limit))

    @override
    def _count(self, client: str) -> int:
        answer = self._command("client_in_flight", client.encode())
        # No answer: the loop has ended, and so have its clients.
        return _COUNT.unpack(answer)[0] if answer else 0

    @override
    def _enter(self, client: str) -> bool:
        return self._command("client_enter", client.encode()) in (_ENTERED, b"")

    @override
    def _leave(self, client: str) -> None:
        self._command("client_leave", client.encode())
