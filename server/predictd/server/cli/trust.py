"""How the commands that talk to a running daemon encrypt, and what they show it: options, and the files they name."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Trust:
    """What the options say.

    Attributes:
        tls: Encrypt.
        ca: Whom to trust, in PEM; None for whom gRPC or the system trusts.
        certificate: What to show the daemon, in PEM.
        key: Of that, in PEM.
        server_name: In the daemon's certificate, where it is not the address's.
        token: To show the daemon.
    """

    tls: bool = False
    ca: bytes | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    token: str | None = None

    def check_token(self, address: str) -> None:
        """Raise click.ClickException if the token could be read on its way to an address."""
        # Only now: the help must not wait for it.
        from predictd.server.bench.access import on_this_machine

        if self.token is not None and not self.tls and not on_this_machine(address):
            raise click.ClickException(f"{address}: a token is sent over TLS only, or to this machine")

    def context(self) -> ssl.SSLContext | None:
        """For Python's own HTTP; None to speak in the clear. Raises click.ClickException."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(
                cadata=None if self.ca is None else self.ca.decode("ascii", "ignore")
            )
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise click.ClickException(
                f"certificate or key cannot be read ({error.reason or 'no PEM'})"
            ) from error
        return context


_OPTIONS = (
    click.option(
        "--tls",
        is_flag=True,
        envvar="PREDICTD_TLS",
        show_envvar=True,
        help="Encrypt; the other options of TLS say so, too, where one is given.",
    ),
    click.option(
        "--tls-ca",
        type=_FILE,
        metavar="FILE",
        envvar="PREDICTD_TLS_CA",
        show_envvar=True,
        help="Authorities to trust, in PEM; without it those that everybody trusts.",
    ),
    click.option(
        "--tls-server-name",
        metavar="NAME",
        envvar="PREDICTD_TLS_SERVER_NAME",
        show_envvar=True,
        help="The name in the daemon's certificate, where it is not that of the address.",
    ),
    click.option(
        "--tls-certificate",
        "client_certificate",
        type=_FILE,
        metavar="FILE",
        envvar="PREDICTD_CLIENT_CERTIFICATE",
        show_envvar=True,
        help="The certificate to show the daemon, in PEM.",
    ),
    click.option(
        "--tls-key",
        "client_key",
        type=_FILE,
        metavar="FILE",
        envvar="PREDICTD_CLIENT_KEY",
        show_envvar=True,
        help="The private key of that certificate, in PEM.",
    ),
    click.option(
        "--token-file",
        type=_FILE,
        metavar="FILE",
        envvar="PREDICTD_TOKEN_FILE",
        show_envvar=True,
        help="A file that holds the token to show the daemon.",
    ),
)


def trust_options(command: F) -> F:
    """Give a command the options, which it is handed as `trust`."""

    @functools.wraps(command)
    def trusting(
        *,
        tls: bool,
        tls_ca: Path | None,
        tls_server_name: str | None,
        client_certificate: Path | None,
        client_key: Path | None,
        token_file: Path | None,
        **given: Any,
    ) -> Any:
        if (client_certificate is None) != (client_key is None):
            raise click.UsageError("--tls-certificate and --tls-key are of no use without each other")
        trust = Trust(
            tls=tls or any((tls_ca, tls_server_name, client_certificate)),
            ca=None if tls_ca is None else _read(tls_ca),
            certificate=client_certificate,
            key=client_key,
            server_name=tls_server_name,
            token=None if token_file is None else _token(token_file),
        )
        return command(**given, trust=trust)

    decorated: Any = trusting
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    result: F = decorated
    return result


def _token(path: Path) -> str:
    token = _read(path).decode("ascii", "replace").strip()
    if not token or any(not "!" <= character <= "~" for character in token):
        raise click.ClickException(f"{path}: it holds no token")
    return token


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{path}: {str(error.strerror).lower()}") from error
