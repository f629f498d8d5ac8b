"""What the commands that talk to a running daemon share: its address, and errors as one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from predictd.client import (
    NO_RETRIES,
    Client,
    DeadlineExceededError,
    PredictdError,
    Tls,
    TlsError,
    UnavailableError,
    tls,
)
from predictd.server.cli.trust import Trust, trust_options
from predictd.server.config.units import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from predictd.client import Model

F = TypeVar("F", bound=Callable[..., Any])

# Metadata is answered by the front end alone; one that takes longer is not there.
_METADATA_SECONDS = 10.0
_START = "predictd serve MODEL.onnx"
_OPTIONS = {
    "Tls(server_name=…)": "--tls-server-name",
    "root_certificates": "--tls-ca",
    "certificate_chain": "--tls-certificate",
    "private_key": "--tls-key",
}

grpc_option = click.option(
    "--grpc",
    "target",
    metavar="HOST:PORT",
    envvar="PREDICTD_GRPC",
    default="127.0.0.1:8001",
    show_default=True,
    show_envvar=True,
    help="Where the daemon listens.",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A daemon, as the options describe it.

    Attributes:
        address: Where it listens.
        trust: How to encrypt, and what to show it.
    """

    address: str
    trust: Trust = Trust()  # noqa: RUF009 - frozen

    @property
    def tls(self) -> Tls | None:
        """How the client encrypts. Raises OSError."""
        trust = self.trust
        if not trust.tls:
            return None
        return Tls(
            root_certificates=trust.ca,
            certificate_chain=_source(trust.certificate),
            private_key=_source(trust.key),
            server_name=trust.server_name,
        )

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return self.address


def daemon_options(command: F) -> F:
    """Give a command what says which daemon to talk to, and how; it is handed that as `target`."""

    @functools.wraps(command)
    def with_target(*, target: str, trust: Trust, **given: Any) -> Any:
        trust.check_token(target)
        return command(**given, target=Target(target, trust))

    decorated: Any = grpc_option(trust_options(with_target))
    result: F = decorated
    return result


def _seconds(_ctx: click.Context, _parameter: click.Parameter, text: str) -> float:
    try:
        seconds = parse_duration_ns(text) / 1e9
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if seconds <= 0:
        raise click.BadParameter("it must be more than 0")
    return seconds


wait_option = click.option(
    "--wait",
    "wait_seconds",
    metavar="DURATION",
    default="10m",
    show_default=True,
    callback=_seconds,
    help="How long to wait; the daemon goes on after that.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def connect(target: Target) -> Iterator[Client]:
    """Give a client of the daemon. What goes wrong with it ends the command with one line."""
    with reading_certificates():
        made = Client(target.address, retries=NO_RETRIES, tls=target.tls, token=target.trust.token)
    try:
        with made as client:
            yield client
    except PredictdError as error:
        raise click.ClickException(_line(error)) from error


@contextmanager
def reading_certificates() -> Iterator[None]:
    """Make what connects in this: files that cannot be used end the command with one line."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {str(error.strerror).lower()}") from error
    except ValueError as error:
        raise click.ClickException(_in_options(str(error))) from error


def fetch_model(client: Client, target: Target, name: str, start: str = _START) -> Model:
    """Ask the daemon for a model, as the first call on a connection: it shows whether there is a daemon."""
    with reaching(target, start):
        return client.model(name, deadline=_METADATA_SECONDS)


def fetch_models(client: Client, target: Target) -> tuple[Model, ...]:
    """Ask the daemon for all models, as the first call on a connection."""
    with reaching(target):
        return client.models(deadline=_METADATA_SECONDS)


@contextmanager
def reaching(target: Target, start: str = _START) -> Iterator[None]:
    """Make the first call on a connection in this: it says so when there is no daemon."""
    try:
        yield
    except TlsError as error:
        raise click.ClickException(f"{target}: {_in_options(error.message)}") from error
    except (UnavailableError, DeadlineExceededError) as error:
        # One that hangs up is there, and wants something else.
        advice = f"; start one with: {start}" if tls.hint(error.message) is None else ""
        raise click.ClickException(f"no daemon answers at {target} ({_line(error)}){advice}") from error


def _source(path: Path | None) -> Path | bytes | None:
    """What the client takes: it can look a pair of files over, and read a pipe but once."""
    return path if path is None or path.is_file() else path.read_bytes()


def _in_options(text: str) -> str:
    """What the client says of encryption, in one line, with our options in place of its arguments."""
    for argument, name in _OPTIONS.items():
        text = text.replace(argument, name)
    return " ".join(text.split())


def _line(error: PredictdError) -> str:
    return " ".join(error.message.split())
