"""What a target, its encryption and its addresses come to; tokens; which connection a call takes."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from predictd.client import Client, Tls, UnavailableError
from predictd.client.connections import Connections, Owner
from predictd.client.errors import from_status
from tests.fixtures.prediction_service import FakeService, in_order, serving

if TYPE_CHECKING:
    from pathlib import Path

ONE = {"x": [1]}
ME = Owner(1, None, 0)


class Handlers:
    """Catches what a servicer would add to a server."""

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        (self.handler,) = handlers

    def add_registered_method_handlers(self, *_: Any) -> None:
        """Of no use here: the generic handler has them, too."""


def reporting(**statuses: int) -> grpc.GenericRpcHandler:
    servicer, server = health.HealthServicer(), Handlers()
    for service, status in statuses.items():
        servicer.set(service, status)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    handler: grpc.GenericRpcHandler = server.handler
    return handler


@pytest.mark.parametrize(("token", "shown"), [("t1", "Bearer t1"), (lambda: "t2", "Bearer t2"), (None, None)])
def test_every_call_shows_the_token(make_client: Any, token: Any, shown: str | None) -> None:
    service = FakeService(stream=in_order)
    with serving(service) as target, make_client(target, token=token) as client:
        client.predict("echo", ONE)
        list(client.predict_many("echo", [ONE]))
    assert service.tokens == [shown, shown]


@pytest.fixture(name="certificate", scope="module")
def _certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    names = ("-subj", "/CN=model.example", "-addext", "subjectAltName=DNS:model.example")
    command = ("openssl", "req", "-x509", *options, *names, "-keyout", key, "-out", certificate)
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


def test_connections_are_encrypted_and_names_checked(make_client: Any, certificate: Path) -> None:
    key = (certificate / "key.pem").read_bytes()
    chain = (certificate / "certificate.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(key, chain)], chain, require_client_auth=True)
    tls = Tls(root_certificates=chain, certificate_chain=chain, private_key=key, server_name="model.example")
    with serving(FakeService(stream=in_order), credentials=credentials) as target:
        with make_client(target, tls=tls) as client:
            assert client.predict("echo", ONE).outputs["x"] == [1]
            (answer,) = client.predict_many("echo", [ONE])
            assert answer.outputs["x"] == [1]
        for wrong in (Tls(root_certificates=chain), None):
            with make_client(target, tls=wrong) as client, pytest.raises(UnavailableError):
                client.predict("echo", ONE)


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
