"""What gRPC is told of connections, in words that it knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from predictd.server.config.settings import Settings
from predictd.server.frontend.connections import connections_max, server_options

DEFAULTS = Settings().connections
UNBOUNDED = 2**31 - 1
FILES = 2**20


def test_every_name_is_one_that_grpc_knows() -> None:
    """An option that it does not know it passes over in silence."""
    (library,) = [path.read_bytes() for path in Path(grpc.__file__).parent.glob("_cython/cygrpc.*.so")]
    assert [name for name, _ in server_options(DEFAULTS, FILES) if name.encode() not in library] == []


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ("max_age_ns", "grpc.max_connection_age_ms"),
        ("max_age_grace_ns", "grpc.max_connection_age_grace_ms"),
        ("max_idle_ns", "grpc.max_connection_idle_ms"),
        ("keepalive_time_ns", "grpc.keepalive_time_ms"),
    ],
)
@pytest.mark.parametrize(("ns", "ms"), [(0, UNBOUNDED), (1, 1), (10**6, 1), (3 * 10**9, 3000)])
def test_a_time_is_rounded_up_and_none_is_no_bound(attribute: str, name: str, ns: int, ms: int) -> None:
    assert dict(server_options(replace(DEFAULTS, **{attribute: ns}), FILES))[name] == ms


def test_the_patience_with_a_client_that_should_answer_is_the_same_wherever_grpc_has_one() -> None:
    options = dict(
        server_options(
            replace(DEFAULTS, keepalive_timeout_ns=5 * 10**9, handshake_timeout_ns=7 * 10**9), FILES
        )
    )
    assert options["grpc.keepalive_timeout_ms"] == options["grpc.http2.ping_timeout_ms"] == 5000
    assert options["grpc.server_handshake_timeout_ms"] == options["grpc.http2.settings_timeout"] == 7000


def test_clients_may_ask_as_often_as_they_are_let() -> None:
    assert dict(
        server_options(replace(DEFAULTS, min_ping_interval_ns=0, max_ping_strikes=0), FILES)
    ).items() >= {
        ("grpc.http2.min_ping_interval_without_data_ms", 0),
        ("grpc.http2.max_ping_strikes", 0),
    }


@pytest.mark.parametrize(
    ("wanted", "files", "listeners", "granted"),
    [
        (100, 2**20, 1, 100),
        (10_000, 4608, 1, 4096),
        (10_000, 4608, 2, 2048),
        (10_000, 64, 1, 32),
        (10, 1, 3, 1),
    ],
)
def test_connections_leave_descriptors_for_everything_else(
    wanted: int, files: int, listeners: int, granted: int
) -> None:
    assert connections_max(replace(DEFAULTS, max_connections=wanted), files, listeners) == granted


def test_metadata_have_one_limit_below_which_all_pass() -> None:
    options = dict(server_options(replace(DEFAULTS, max_metadata_bytes=5000), FILES))
    assert options["grpc.max_metadata_size"] == options["grpc.absolute_max_metadata_size"] == 5000
