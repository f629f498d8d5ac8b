"""How gRPC is told what connections may do."""

from __future__ import annotations

from predictd.server.config.connections import ConnectionRules

_NS_PER_MS = 10**6
# gRPC's own word for "no bound".
_UNBOUNDED = 2**31 - 1
# Pipes and memory of workers, log and control channel need descriptors, too. Without one when the supervisor sends it,
# a front end would have to end.
_RESERVED_DESCRIPTORS = 512


def server_options(rules: ConnectionRules, open_files_max: int, listeners: int = 1) -> list[tuple[str, int]]:
    """The channel arguments of a server.

    Args:
        rules: For its connections.
        open_files_max: Descriptors that the process may have.
        listeners: Addresses at which it listens: gRPC counts the connections of each by itself.
    """
    return [
        ("grpc.max_allowed_incoming_connections", connections_max(rules, open_files_max, listeners)),
        # Between two limits gRPC would refuse some and let others pass.
        ("grpc.max_metadata_size", rules.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", rules.max_metadata_bytes),
        ("grpc.max_connection_age_ms", _bound_ms(rules.max_age_ns)),
        ("grpc.max_connection_age_grace_ms", _bound_ms(rules.max_age_grace_ns)),
        ("grpc.max_connection_idle_ms", _bound_ms(rules.max_idle_ns)),
        ("grpc.max_concurrent_streams", rules.max_streams),
        ("grpc.server_handshake_timeout_ms", _bound_ms(rules.handshake_timeout_ns)),
        ("grpc.http2.settings_timeout", _bound_ms(rules.handshake_timeout_ns)),
        ("grpc.keepalive_time_ms", _bound_ms(rules.keepalive_time_ns)),
        ("grpc.keepalive_timeout_ms", _bound_ms(rules.keepalive_timeout_ns)),
        # Of its own accord gRPC waits a minute, whatever the timeout of the keepalive says.
        ("grpc.http2.ping_timeout_ms", _bound_ms(rules.keepalive_timeout_ns)),
        # Without calls, too, and as often as need be: a peer that went without a word is found only by asking.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(rules.min_ping_interval_ns)),
        ("grpc.http2.max_ping_strikes", rules.max_ping_strikes),
    ]


def connections_max(rules: ConnectionRules, open_files_max: int, listeners: int = 1) -> int:
    """How many connections are taken at each address. Arguments as of `server_options`."""
    spare = max(open_files_max - _RESERVED_DESCRIPTORS, open_files_max // 2)
    return max(min(rules.max_connections, spare // listeners), 1)


def _bound_ms(ns: int) -> int:
    return _ms(ns) or _UNBOUNDED


def _ms(ns: int) -> int:
    return -(-ns // _NS_PER_MS)
