"""What the gRPC server allows its clients' connections, apart from the calls on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRules:
    """Bounds on connections. Of the times, 0 stands for no bound.

    Attributes:
        max_age_ns: When the client is asked to open another connection; gRPC varies it by a tenth either way.
        max_age_grace_ns: How long the calls of such a connection may then take before it is cut.
        max_idle_ns: How long a connection may have no call.
        max_streams: Calls at once; the client keeps more of them back.
        max_connections: Of a front end; more are closed at once.
        max_metadata_bytes: Of a call, as HTTP/2 counts them.
        handshake_timeout_ns: How long a client may take to begin to speak HTTP/2.
        keepalive_time_ns: Silence after which the client is asked whether it is there.
        keepalive_timeout_ns: How long its answer may take before the connection is cut.
        min_ping_interval_ns: A client that asks the same more often, and sends nothing else, gets a strike.
        max_ping_strikes: With more of them it is sent away; 0 lets it ask.
    """

    max_age_ns: int
    max_age_grace_ns: int
    max_idle_ns: int
    max_streams: int
    max_connections: int
    max_metadata_bytes: int
    handshake_timeout_ns: int
    keepalive_time_ns: int
    keepalive_timeout_ns: int
    min_ping_interval_ns: int
    max_ping_strikes: int
