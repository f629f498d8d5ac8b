"""A call that the loop in C has, as far as it is told of it: where it comes from and what came with it."""

from __future__ import annotations

from dataclasses import dataclass

from predictd.server.frontend.native import metadata


@dataclass(frozen=True, slots=True)
class Seen:
    """Has the methods of a call's context that ask who calls.

    Attributes:
        address: The client, as gRPC writes it.
        identity: What its certificate says, as fields.
        fields: What came with the call.
    """

    address: str
    identity: bytes
    fields: bytes

    @classmethod
    def parse(cls, about: bytes) -> Seen:
        """What `request_log_about` wrote."""
        address, identity, fields = metadata.each(about)
        return cls(address.decode(), identity, fields)

    def peer(self) -> str:
        """See `native.context.Call`."""
        return self.address

    def invocation_metadata(self) -> metadata.Metadata:
        """See `native.context.Call`."""
        return metadata.unpack(self.fields)

    def auth_context(self) -> dict[str, list[bytes]]:
        """See `native.context.Call`."""
        return metadata.grouped(self.identity)
