"""Options of `predictd bench` that say how a server is reached: TLS and a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from predictd.server.bench.access import Access

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("tls", "tls_ca", "tls_certificate", "tls_key", "tls_server_name", "token_file")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def access_options(command: F) -> F:
    """Give a command these options."""
    for option in (
        click.option(
            "--token-file",
            type=_FILE,
            metavar="FILE",
            help="Its content is sent with each call, as `authorization: Bearer …`.",
        ),
        click.option(
            "--tls-server-name",
            metavar="NAME",
            help="The name in the server's certificate, where it is not that of --grpc.",
        ),
        click.option("--tls-key", type=_FILE, metavar="FILE", help="Of --tls-certificate, in PEM."),
        click.option(
            "--tls-certificate", type=_FILE, metavar="FILE", help="What to show to the server, in PEM."
        ),
        click.option(
            "--tls-ca",
            type=_FILE,
            metavar="FILE",
            help="Authorities to trust, in PEM.  [default: those of this machine]",
        ),
        click.option(
            "--tls", is_flag=True, help="Encrypt; the other options of TLS say so, too, where one is given."
        ),
    ):
        command = option(command)
    return command


def access(
    *,
    tls: bool,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
    token_file: Path | None,
) -> Access:
    """What the options say."""
    # Only now: the help must not wait for it.
    from predictd.server.bench.access import Access

    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    return Access(
        tls=tls or any((tls_ca, tls_certificate, tls_server_name)),
        ca=str(tls_ca or ""),
        certificate=str(tls_certificate or ""),
        key=str(tls_key or ""),
        server_name=tls_server_name or "",
        token="" if token_file is None else _token(token_file),
    )


def _token(file: Path) -> str:
    try:
        token = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise click.ClickException(f"{file}: {str(error.strerror or error).lower()}") from error
    except ValueError:
        token = ""
    if not token.isprintable() or len(token.split()) != 1:
        raise click.ClickException(f"{file}: a token is one word of visible ASCII characters")
    return token
