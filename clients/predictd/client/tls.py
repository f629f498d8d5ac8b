"""Encrypted connections: whose certificates, read again when their files change, and what it means that one fails."""

from __future__ import annotations

import re
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc

# How soon certificates and keys that were replaced on disk are used.
REREAD_SECONDS = 1.0
_BEGINS_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )?PRIVATE KEY-----")
# What gRPC says where no connection comes about, and what that means; the first that fits counts.
_MEANINGS = (
    ("certificate has expired", "the server's certificate has expired, or this machine's clock is wrong"),
    (
        "certificate is not yet valid",
        "the server's certificate is not valid yet, or this machine's clock is wrong",
    ),
    (
        "ostname Verification Check failed|is not in peer certificate",
        "the server's certificate is of another name than the target's: Tls(server_name=…) says which one to expect",
    ),
    (
        "unable to get (?:local )?issuer certificate|self.signed certificate|unable to verify the first certificate",
        "the server's certificate is not signed by any of root_certificates",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not accepted"),
    ("WRONG_VERSION_NUMBER|HTTP_REQUEST", "the server does not speak TLS at this address"),
    (
        "ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED)|CERTIFICATE_REQUIRED",
        "the server does not accept this client's certificate",
    ),
    (
        "Failed to create security handshaker",
        "gRPC cannot use these certificates: is private_key that of certificate_chain, and all of it PEM?",
    ),
    ("(?:TLS|Tls|Ssl|SSL) handshake failed", "the two sides do not agree on how to encrypt"),
)
# Also what a daemon looks like that is just ending, so it is a hint and no more. Corrupted data, with older gRPC a read
# that failed, is what becomes of an alert after the handshake, when a server of TLS 1.3 may refuse a certificate.
_ENDED_AT_ONCE = re.compile(
    r"last error: .*(?:Socket closed|Connection reset by peer|Broken pipe|TSI_DATA_CORRUPTED|Secure read failed)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection. What is given as a path is read again when the file changes, for new connections.

    Attributes:
        root_certificates: Whom to trust, in PEM, or the file that has it; None for those that gRPC brings.
        certificate_chain: What the client shows the server, likewise.
        private_key: Of that certificate, likewise.
        server_name: The name in the server's certificate, where it is not the target's.

    Raises:
        ValueError: There is a certificate without its key, or a key without its certificate.
        TypeError: One of them is neither bytes nor a path.
    """

    root_certificates: bytes | Path | None = None
    certificate_chain: bytes | Path | None = None
    private_key: bytes | Path | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("root_certificates", "certificate_chain", "private_key"):
            value = getattr(self, name)
            if not isinstance(value, bytes | Path | None):
                raise TypeError(f"{name} is PEM in bytes or a pathlib.Path, not {type(value).__name__}")
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("certificate_chain and private_key belong together: one of them is missing")

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC, as it is now. Raises as `load` does."""
        return load(self).credentials()


@dataclass(frozen=True, slots=True)
class Pem:
    """Certificates and key as gRPC takes them."""

    roots: bytes | None
    chain: bytes | None
    key: bytes | None = field(repr=False)

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC."""
        return grpc.ssl_channel_credentials(self.roots, self.key, self.chain)


def load(tls: Tls) -> Pem:
    """Read what is in files, and look it over: gRPC says little of what it cannot use, and late.

    Raises:
        OSError: A file cannot be read.
        ValueError: Something is no PEM, or the key is not that of the certificate.
    """
    pem = _read(tls)
    _check(tls, pem)
    return pem


class Credentials:
    """The certificates to use now, of a client that may run for longer than they hold. Threads may share it."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        # Certificates and how often they have changed. Threads that look at once come to the same.
        self._now = (load(tls), 0)
        sources = (tls.root_certificates, tls.certificate_chain, tls.private_key)
        self._changes = any(isinstance(source, Path) for source in sources)
        self._read_again = time.monotonic() + REREAD_SECONDS

    @property
    def pem(self) -> Pem:
        """Those that were looked at last."""
        return self._now[0]

    def generation(self) -> int:
        """How often they have changed, looked at again if that is due."""
        if self._changes and time.monotonic() >= self._read_again:
            self._read_again = time.monotonic() + REREAD_SECONDS
            self._now = self._look(*self._now)
        return self._now[1]

    def _look(self, known: Pem, number: int) -> tuple[Pem, int]:
        try:
            pem = _read(self._tls)
            if pem != known:
                _check(self._tls, pem)
        except (OSError, ValueError):
            # Files are replaced one by one: until they fit together, the old ones are used.
            return known, number
        return (known, number) if pem == known else (pem, number + 1)


def explain(details: str) -> str | None:
    """What it means, if it is about certificates or encryption, that gRPC could not connect."""
    return next((meaning for sign, meaning in _MEANINGS if re.search(sign, details)), None)


def hint(details: str) -> str | None:
    """What else it may mean that gRPC could not connect."""
    if _ENDED_AT_ONCE.search(details):
        return "the server ended the connection at once: it may ask for TLS, or for a client certificate it trusts"
    return None


def _read(tls: Tls) -> Pem:
    def data(source: bytes | Path | None) -> bytes | None:
        return source.read_bytes() if isinstance(source, Path) else source

    return Pem(data(tls.root_certificates), data(tls.certificate_chain), data(tls.private_key))


def _check(tls: Tls, pem: Pem) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, source, data in (
        ("root_certificates", tls.root_certificates, pem.roots),
        ("certificate_chain", tls.certificate_chain, pem.chain),
    ):
        if data is not None:
            try:
                context.load_verify_locations(cadata=data.decode("ascii", "replace"))
            except ssl.SSLError as error:
                raise ValueError(f"{_named(name, source)}: no certificate in PEM") from error
    if pem.key is not None and not _BEGINS_KEY.search(pem.key):
        raise ValueError(f"{_named('private_key', tls.private_key)}: no key in PEM that is not encrypted")
    if isinstance(tls.certificate_chain, Path) and isinstance(tls.private_key, Path):
        try:
            # An encrypted key would have OpenSSL ask at the terminal.
            context.load_cert_chain(tls.certificate_chain, tls.private_key, password="")
        except ssl.SSLError as error:
            raise ValueError(f"{tls.private_key} is not the key of {tls.certificate_chain}") from error


def _named(name: str, source: bytes | Path | None) -> str:
    return f"{name} {source}" if isinstance(source, Path) else name
