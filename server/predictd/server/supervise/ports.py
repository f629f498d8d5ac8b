"""The daemon's addresses: taken or refused in one step, and held for front ends that come and go."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from predictd.server.config.units import Address

HTTP_BACKLOG = 128


class AddressError(Exception):
    """An address cannot be listened on. The message is one line."""


@dataclass(frozen=True, slots=True)
class ReservedPort:
    """A gRPC address that front ends share with SO_REUSEPORT.

    Attributes:
        address: As it is announced.
        targets: What each front end binds, `host:port` with literal addresses.
        sockets: Bound and never listening, so that the port stays ours while front ends restart.
    """

    address: Address
    targets: tuple[str, ...]
    sockets: tuple[socket.socket, ...]

    def close(self) -> None:
        """Give the port up."""
        for sock in self.sockets:
            sock.close()


def is_private(port: ReservedPort) -> bool:
    """Only this machine reaches the port."""
    return all(_is_loopback(target.rpartition(":")[0].strip("[]")) for target in port.targets)


def are_private(sockets: Sequence[socket.socket]) -> bool:
    """Only this machine reaches what listens there."""
    return all(_is_loopback(sock.getsockname()[0]) for sock in sockets)


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def reserve(address: Address) -> ReservedPort:
    """Take a port for front ends.

    The first bind is made without SO_REUSEPORT, so that a port of another daemon (even one that shares it among its
    own processes) is an error here and not a silent sharing of its connections.

    Raises:
        AddressError: The address is taken, is not local, or does not resolve.
    """
    port, sockets = _open(address, _share)
    return ReservedPort(Address(address.host, port), tuple(map(_target, sockets)), tuple(sockets))


def listen(address: Address) -> tuple[Address, list[socket.socket]]:
    """Listen for HTTP: the address as bound, and the sockets.

    Raises:
        AddressError: As `reserve`.
    """
    port, sockets = _open(address, _accept)
    return Address(address.host, port), sockets


def _open(address: Address, prepare: Callable[[socket.socket], None]) -> tuple[int, list[socket.socket]]:
    """Bind all that an address stands for, on one port: the port, and the sockets. All of them or none."""
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, host in _resolve(address):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            _bind(sock, address, host, port)
            prepare(sock)
            port = sock.getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return port, sockets


def _share(sock: socket.socket) -> None:
    # Cleared again, lest another daemon's SO_REUSEADDR be enough to share the port while nobody listens.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _accept(sock: socket.socket) -> None:
    sock.listen(HTTP_BACKLOG)
    sock.setblocking(False)


def _resolve(address: Address) -> Sequence[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise AddressError(f"{address}: {error.strerror}") from error
    usable = list(dict.fromkeys((family, str(sockaddr[0])) for family, _, _, _, sockaddr in found))
    # A name such as localhost may have an address of a family that the machine does not have.
    working = [(family, host) for family, host in usable if len(usable) == 1 or _has_address(family, host)]
    return working or usable


def _has_address(family: socket.AddressFamily, host: str) -> bool:
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return True
    return False


def _bind(sock: socket.socket, address: Address, host: str, port: int) -> None:
    if sock.family == socket.AF_INET6:
        wildcard = host == "::"
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if wildcard else 1)
    # Connections of a daemon that just ended must not keep the next one waiting (TIME_WAIT).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"{Address(address.host, port)} is already in use by another process"
            ) from error
        raise AddressError(f"{Address(address.host, port)}: {error.strerror}") from error


def _target(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"
