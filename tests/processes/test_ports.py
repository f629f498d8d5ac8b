"""Addresses: those that work, and those that are taken."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from predictd.client import NO_RETRIES, Client
from tests.fixtures.daemon import Daemon
from tests.fixtures.processes import (
    GATED,
    assert_gone,
    custom,
    family,
    free_port,
    refused,
    scaled,
    serving,
    versioned,
)


@pytest.fixture(name="repository")
def _repository(tmp_path: Path) -> Path:
    versioned(tmp_path / "models", "double", {1: 2.0})
    return tmp_path / "models"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("host", "reached_by"),
    [
        ("127.0.0.1", ["127.0.0.1", "localhost"]),
        ("localhost", ["localhost", "127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1", "localhost"]),
        pytest.param("[::1]", ["[::1]"], marks=needs_ipv6),
        pytest.param("[::]", ["[::1]", "127.0.0.1", "localhost"], marks=needs_ipv6),
    ],
)
def test_every_way_to_write_an_address_works(
    host: str, reached_by: list[str], repository: Path, tmp_path: Path
) -> None:
    address = f"{host}:0"
    with serving(repository, folder=tmp_path / "run", grpc=address, http=address) as daemon:
        for bound in (daemon.grpc, daemon.http):
            assert bound.startswith(f"{host}:")
            assert int(bound.rpartition(":")[2]) > 0
        assert json.loads((tmp_path / "run" / "ready.json").read_text()) == {
            "grpc": daemon.grpc,
            "http": daemon.http,
        }
        port, http_port = (bound.rpartition(":")[2] for bound in (daemon.grpc, daemon.http))
        for reached in reached_by:
            with Client(f"{reached}:{port}", retries=NO_RETRIES) as client:
                assert scaled(client, "double") == 2.0
            daemon.http = f"{reached}:{http_port}"
            assert daemon.get("/readyz") == (200, "ready\n")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere.invalid:0", "predictd: gRPC address nowhere.invalid:0: "),
        # A documentation address (RFC 5737), which no machine has.
        ("192.0.2.1:0", "predictd: gRPC address 192.0.2.1:0: "),
        ("::1:0", "predictd serve: --grpc: '::1:0' is ambiguous"),
        ("127.0.0.1", "predictd serve: --grpc: '127.0.0.1' has no port"),
        ("127.0.0.1:70000", "predictd serve: --grpc: '127.0.0.1:70000' has no port between 0 and 65535"),
    ],
)
def test_an_address_that_cannot_be_had_is_one_line(
    address: str, message: str, repository: Path, tmp_path: Path
) -> None:
    refusal = refused(repository, folder=tmp_path / "run", grpc_address=address)
    assert refusal.status == 2
    assert len(refusal.complaints) == 1
    assert refusal.complaints[0].startswith(message)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", pytest.param("[::]", marks=needs_ipv6)])
def test_a_second_daemon_on_a_taken_port_is_one_line(host: str, repository: Path, tmp_path: Path) -> None:
    with (
        serving(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        taken = f"{host}:{daemon.grpc.rpartition(':')[2]}"
        second = refused(repository, folder=tmp_path / "second", grpc_address=taken)
        assert second.status == 2
        assert second.complaints == [f"predictd: gRPC address {taken} is already in use by another process"]

        taken = f"{host}:{daemon.http.rpartition(':')[2]}"
        third = refused(repository, folder=tmp_path / "third", http_address=taken)
        assert third.status == 2
        assert third.complaints == [f"predictd: HTTP address {taken} is already in use by another process"]

        assert scaled(client, "double") == 2.0
        assert daemon.get("/readyz") == (200, "ready\n")


def test_a_port_is_taken_from_the_first_moment_on(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    model = custom(tmp_path / "models", "gated", GATED, load_gate=gate)
    address, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    first = Daemon(model, folder=tmp_path / "run", grpc=address, http=http)
    try:
        # Its front end does not listen yet, and its model waits for the gate.
        first.wait_until(lambda: "frontend 0" in first.output(), 30, "on its way")
        second = refused(model, folder=tmp_path / "second", grpc_address=address)
        assert second.complaints == [f"predictd: gRPC address {address} is already in use by another process"]
        third = refused(model, folder=tmp_path / "third", http_address=http)
        assert third.complaints == [f"predictd: HTTP address {http} is already in use by another process"]
        gate.touch()
        first.wait_ready()
        pids = family(first)
        assert first.stop() == 0
        assert_gone(pids)
    finally:
        first.kill()


def test_the_port_of_a_daemon_that_stopped_is_free_at_once(repository: Path, tmp_path: Path) -> None:
    address, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    for _ in range(2):
        with (
            Client(address, retries=NO_RETRIES) as client,
            serving(repository, folder=tmp_path / "run", grpc=address, http=http) as daemon,
        ):
            # Connections that the daemon closes stay in TIME_WAIT on its side.
            assert scaled(client, "double") == 2.0
            assert daemon.get("/readyz") == (200, "ready\n")


def test_one_address_for_both_is_refused(repository: Path, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    refusal = refused(repository, folder=tmp_path / "run", grpc_address=address, http_address=address)
    assert refusal.status == 2
    assert refusal.complaints == [
        f"predictd serve: grpc (--grpc) and http (--http): both cannot listen on {address}"
    ]
