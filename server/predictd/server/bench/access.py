"""How a server is reached: in the clear or over TLS, with a token or without."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from typing_extensions import override

from predictd.server.measure.engine_process import MeasureError

if TYPE_CHECKING:
    import grpc

UNIX = "unix:"
HTTPS = "https://"
_ALPN = "h2"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be shown to a server, and whom it has to be. Files are in PEM.

    Attributes:
        tls: Encrypt.
        ca: File with the authorities to trust; empty for those of this machine.
        certificate: File with what the client shows; empty for nothing.
        key: File with its private key.
        server_name: The name in the server's certificate; empty for that of the target.
        token: Sent with each call as `authorization: Bearer …`; empty for none.
    """

    tls: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    token: str = ""

    @override
    def __repr__(self) -> str:
        """Without the token: what is logged is read by others."""
        return f"Access(tls={self.tls}, token={'…' if self.token else ''})"

    def check(self, target: str, http: str) -> None:
        """Raise MeasureError for files that cannot be used, and for a token that others could read on its way."""
        if self.tls:
            self.context()
        clear = [] if self.tls else [target]
        if http and not http.startswith(HTTPS):
            clear.append(http)
        for address in clear:
            if self.token and not _on_this_machine(address):
                raise MeasureError(f"{address}: a token is sent over TLS only, or to this machine")

    def context(self) -> ssl.SSLContext:
        """For connections that speak HTTP/2. Raises MeasureError with the file that cannot be used."""
        context = self.plain_context()
        context.set_alpn_protocols([_ALPN])
        return context

    def plain_context(self) -> ssl.SSLContext:
        """For any other."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ValueError) as error:
            raise MeasureError(f"{self.ca}: no certificates of authorities: {_reason(error)}") from error
        if self.certificate:
            try:
                context.load_cert_chain(self.certificate, self.key, _no_password)
            except (OSError, ValueError) as error:
                raise MeasureError(
                    f"{self.certificate} and {self.key}: no certificate with its key: {_reason(error)}"
                ) from error
        return context

    def channel(self, target: str, options: list[tuple[str, int | str]]) -> grpc.Channel:
        """The same for the ordinary client."""
        import grpc

        if not self.tls:
            return grpc.insecure_channel(target, options)
        if self.server_name:
            options = [*options, ("grpc.ssl_target_name_override", self.server_name)]
        credentials = grpc.ssl_channel_credentials(
            _read(self._authorities()), _read(self.key), _read(self.certificate)
        )
        return grpc.secure_channel(target, credentials, options)

    def _authorities(self) -> str:
        """Both clients trust the same: gRPC brings authorities of its own."""
        return self.ca or ssl.get_default_verify_paths().cafile or ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def host(self, target: str) -> str:
        """Whose name stands in the server's certificate."""
        if self.server_name:
            return self.server_name
        return "localhost" if target.startswith(UNIX) else target.rpartition(":")[0].strip("[]")


PLAIN = Access()


def speaks_http2(connection: object) -> bool:
    """Whether the server agreed to it in its handshake; in the clear it is not asked."""
    return not isinstance(connection, ssl.SSLObject) or connection.selected_alpn_protocol() == _ALPN


def _on_this_machine(target: str) -> bool:
    if target.startswith(UNIX):
        return True
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _no_password() -> str:
    raise ValueError("it is encrypted")


def _reason(error: OSError | ValueError) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.lower() or type(error).__name__


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
