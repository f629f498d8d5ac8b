"""The C half of predictd's fast front end; used by predictd.server where it is installed."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from predictd.native import _native

# A kind, and what belongs to it: see src/bridge.h.
Event: TypeAlias = tuple[Any, ...]

BRIDGE_VERSION: int = _native.BRIDGE_VERSION
TRANSPORT_VERSION: int = _native.TRANSPORT_VERSION


class Native(Protocol):
    """What the module `_native` does, so that it can be passed on and tests can have another."""

    def start(self, limits: dict[str, int], /) -> int:
        """Begin the loop's thread. Gives a descriptor that is readable when there are events."""

    def stop(self) -> None:
        """Cut what is left and end the thread."""

    def events(self) -> list[Event]:
        """What happened since the last time, in order."""

    def read(self, number: int, count: int, hungry: bool, /) -> None:
        """So many messages of a call were read; `hungry` waits for the next."""

    def send_headers(self, number: int, fields: bytes, /) -> None:
        """Begin a call's answer with metadata."""

    def send_message(self, number: int, token: int, message: bytes, /) -> None:
        """Send a message; a token that is not 0 comes back in an event when it is on its way."""

    def send_answer(self, number: int, token: int, message: bytes, /) -> None:
        """Send the only message of a call, and its status OK."""

    def send_status(self, number: int, status: int, text: bytes, fields: bytes, /) -> None:
        """End a call."""

    def listen(self, descriptor: int, tls: bool, /) -> None:
        """Accept from a listening socket, which is the loop's from then on."""

    def connection_count(self) -> int:
        """Open connections."""

    def stop_listening(self) -> None:
        """Accept no more."""

    def leave(self) -> None:
        """Tell all clients to go."""

    def cut(self) -> None:
        """Close all connections."""

    def close_streams(self, text: bytes, /) -> None:
        """End streams that C alone serves, once what they asked is answered."""

    def command(self, name: str, arguments: bytes, /) -> bytes:
        """Have the inference half do something."""

    def use_certificate(self, chain: bytes, key: bytes, clients: bytes | None, /) -> None:
        """Serve new TLS connections with this."""


native: Native = _native
