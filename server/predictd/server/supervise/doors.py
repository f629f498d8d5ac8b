"""What the settings say of TLS and of strangers, for the addresses that were bound."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence

from predictd.server.config.settings import Settings
from predictd.server.errors import RefusalReason
from predictd.server.observe.aggregate import Aggregate
from predictd.server.supervise.credentials import Credentials
from predictd.server.supervise.http_access import HttpAccess
from predictd.server.supervise.ports import ReservedPort, are_private, is_private


def http_tls(
    settings: Settings, sockets: Sequence[socket.socket], credentials: Credentials
) -> Callable[[], ssl.SSLContext] | None:
    """What encrypts HTTP; None where nothing does."""
    wanted = not are_private(sockets) if settings.http_tls == "auto" else settings.http_tls == "on"
    if not wanted or credentials.context is None:
        return None

    def current() -> ssl.SSLContext:
        context = credentials.context
        assert context is not None  # noqa: S101 - a certificate is never lost
        return context

    return current


def http_access(
    settings: Settings, sockets: Sequence[socket.socket], credentials: Credentials, aggregate: Aggregate
) -> HttpAccess:
    """Who may read what over HTTP."""

    def count(reason: RefusalReason) -> None:
        aggregate.refusals["http", reason] += 1

    return HttpAccess(
        settings.http.host,
        private=are_private(sockets),
        keyring=lambda: credentials.keyring,
        client_certificates=settings.tls_client_ca is not None,
        count=count,
    )


def open_doors(
    settings: Settings, port: ReservedPort, sockets: Sequence[socket.socket], credentials: Credentials
) -> list[str]:
    """What an operator should know of who gets in, one line each."""
    warnings = credentials.warnings()
    encrypted = settings.tls_certificate is not None
    known = settings.tokens is not None or settings.tls_client_ca is not None
    if not is_private(port):
        where = f"gRPC on {port.address}"
        if not known:
            warnings.append(
                f"{where}: whoever reaches it may infer{' and give commands' if settings.allow_control else ''}"
                f"{'' if encrypted else ', in the clear'}; --tokens, --tls-client-ca and --tls-certificate change that"
            )
        elif not encrypted:
            warnings.append(f"{where}: tokens can be read on the way; --tls-certificate encrypts")
    if not are_private(sockets):
        where = f"HTTP on {settings.http}"
        if not known:
            warnings.append(
                f"{where}: whoever reaches it may read metrics and the status page, with lines of the log; "
                "--tokens and --tls-client-ca change that"
            )
        elif settings.tokens is not None and http_tls(settings, sockets, credentials) is None:
            warnings.append(f"{where}: tokens can be read on the way")
    return warnings
