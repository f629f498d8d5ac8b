"""Addresses are taken in one step or refused in one line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from predictd.server.config.units import Address
from predictd.server.supervise.ports import AddressError, ReservedPort, listen, reserve


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.fixture
def reserved() -> Iterator[ReservedPort]:
    with closing(reserve(Address("127.0.0.1", 0))) as port:
        yield port


def front_end(target: str) -> socket.socket:
    """Bind as a gRPC front end does."""
    host, _, port = target.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host.strip("[]"), int(port)))
    sock.listen()
    return sock


def test_a_free_port_is_announced_with_its_number(reserved: ReservedPort) -> None:
    assert reserved.address.port > 0
    assert reserved.targets == (f"127.0.0.1:{reserved.address.port}",)


def test_front_ends_come_and_go_on_a_reserved_port(reserved: ReservedPort) -> None:
    for _ in range(2):
        with front_end(reserved.targets[0]), front_end(reserved.targets[0]):
            socket.create_connection(("127.0.0.1", reserved.address.port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", reserved.address.port))


@pytest.mark.parametrize("listening", [True, False])
def test_a_reserved_port_is_taken_for_every_other_daemon(reserved: ReservedPort, listening: bool) -> None:
    message = f"^127.0.0.1:{reserved.address.port} is already in use by another process$"
    sockets = [front_end(reserved.targets[0])] if listening else []
    for take in (reserve, listen):
        with pytest.raises(AddressError, match=message):
            take(reserved.address)
    for sock in sockets:
        sock.close()


def test_a_port_that_was_given_up_can_be_taken_again() -> None:
    first = reserve(Address("127.0.0.1", 0))
    first.close()
    reserve(first.address).close()


def test_http_listens_at_once() -> None:
    address, sockets = listen(Address("127.0.0.1", 0))
    try:
        socket.create_connection(("127.0.0.1", address.port)).close()
        assert [sock.getblocking() for sock in sockets] == [False]
        with pytest.raises(AddressError, match="already in use"):
            listen(address)
    finally:
        for sock in sockets:
            sock.close()


def test_an_address_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(AddressError, match=r"^192\.0\.2\.1:8001: Cannot assign requested address$"):
        reserve(Address("192.0.2.1", 8001))


@pytest.mark.parametrize("take", [reserve, listen])
def test_a_name_that_nobody_knows_is_refused(take: object) -> None:
    assert callable(take)
    with pytest.raises(AddressError, match=r"^no-such-host\.invalid:8001: "):
        take(Address("no-such-host.invalid", 8001))


def test_localhost_is_every_loopback_address_of_the_machine_on_one_port() -> None:
    with closing(reserve(Address("localhost", 0))) as port:
        assert (port.address.host, len(port.sockets)) == ("localhost", len(port.targets))
        assert {target.rpartition(":")[2] for target in port.targets} == {str(port.address.port)}
        assert f"127.0.0.1:{port.address.port}" in port.targets
        for target in port.targets:
            front_end(target).close()


@ipv6
def test_ipv6_literals_are_announced_in_brackets() -> None:
    with closing(reserve(Address("::1", 0))) as port:
        assert port.targets == (f"[::1]:{port.address.port}",)
        assert str(port.address) == f"[::1]:{port.address.port}"
        front_end(port.targets[0]).close()


@ipv6
def test_the_ipv6_wildcard_answers_ipv4_too() -> None:
    address, sockets = listen(Address("::", 0))
    try:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, address.port)).close()
        with pytest.raises(AddressError, match="already in use"):
            reserve(Address("127.0.0.1", address.port))
    finally:
        for sock in sockets:
            sock.close()


@ipv6
def test_the_ipv6_loopback_leaves_ipv4_alone() -> None:
    with (
        closing(reserve(Address("::1", 0))) as port,
        closing(reserve(Address("127.0.0.1", port.address.port))),
    ):
        assert port.sockets


def test_nothing_stays_open_when_a_later_address_of_a_name_is_taken(
    monkeypatch: pytest.MonkeyPatch, reserved: ReservedPort
) -> None:
    opened: list[socket.socket] = []
    real = socket.socket

    def remembered(*arguments: int) -> socket.socket:
        opened.append(real(*arguments))
        return opened[-1]

    port = reserved.address.port
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "socket", remembered)
    with pytest.raises(AddressError, match=f"^two-addresses:{port} is already in use"):
        reserve(Address("two-addresses", port))
    assert len(opened) >= 2
    assert all(sock.fileno() == -1 for sock in opened)
