"""What a target and its addresses come to; which connection a call takes."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from predictd.client import Client
from predictd.client.connections import Connections, Owner
from predictd.client.errors import from_status
from tests.fixtures.prediction_service import FakeService, serving

ONE = {"x": [1]}
ME = Owner(1, None, 0)


class Handlers:
    """Catches what a servicer would add to a server."""

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        (self.handler,) = handlers

    def add_registered_method_handlers(self, *_: Any) -> None:
        """Of no use here: the generic handler has them, too."""


def reporting(**statuses: int) -> grpc.GenericRpcHandler:
    # Its other way of sending waits for the server with a lock that the server waits for when a client leaves.
    servicer, server = health.HealthServicer(experimental_non_blocking=False), Handlers()
    for service, status in statuses.items():
        servicer.set(service, status)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    handler: grpc.GenericRpcHandler = server.handler
    return handler


def test_calls_go_round_all_addresses_that_report_to_serve(make_client: Any) -> None:
    first, second = FakeService(), FakeService()
    serves, serves_not = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    with (
        serving(first, reporting(echo=serves)) as one,
        serving(second, reporting(echo=serves_not)) as other,
    ):
        target = f"ipv4:{one},{other}"
        with Client(target) as client:
            # Which one connects first is up to the network; both are there in the end.
            for _ in range(1000):
                client.predict("echo", ONE)
                if first.requests and second.requests:
                    break
        assert first.requests
        assert second.requests
        second.requests.clear()
        with make_client(target, health_service="echo") as client:
            for _ in range(10):
                client.predict("echo", ONE)
        assert not second.requests


def test_a_connection_is_opened_only_where_all_are_busy() -> None:
    opened = iter("abc")
    found = Connections(lambda: next(opened), limit=2)
    with found.take(ME) as first:
        assert first.channel == "a"
        with found.take(ME) as second:
            assert second.channel == "b"
            with found.take(ME) as third:
                assert third in {first, second}
        with found.take(ME) as again:
            assert again is second
    with found.take(ME) as idle:
        assert idle is first


def test_a_connection_that_failed_is_left_alone_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    opened = iter("ab")
    found = Connections(lambda: next(opened), limit=2)
    away = from_status(grpc.StatusCode.UNAVAILABLE, "away")
    with pytest.raises(type(away)), found.take(ME) as first:
        raise away
    with found.take(ME) as other:
        assert other.channel == "b"
    with pytest.raises(type(away)), found.take(ME):
        raise away
    now += 0.5
    with found.take(ME) as least_bad:
        assert least_bad.channel == "a"
    now += 1
    with found.take(ME) as healed:
        assert healed is first


def test_another_process_has_connections_of_its_own() -> None:
    opened = iter("ab")
    found = Connections(lambda: next(opened), limit=1)
    found.take(ME)
    assert found.take(Owner(2, None, 0)).channel == "b"


@pytest.mark.parametrize("wrong", [{"connections": 0}, {"deadline": float("inf")}])
def test_options_that_make_no_sense_are_refused(make_client: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|finite"), make_client("127.0.0.1:1", **wrong):
        pass
