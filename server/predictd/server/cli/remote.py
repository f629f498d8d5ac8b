"""What the commands that talk to a running daemon share: its address, and errors as one line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from predictd.client import NO_RETRIES, Client, DeadlineExceededError, PredictdError, UnavailableError
from predictd.server.config.units import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from predictd.client import Model

# Metadata is answered by the front end alone; one that takes longer is not there.
_METADATA_SECONDS = 10.0
_START = "predictd serve MODEL.onnx"

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
def connect(target: str) -> Iterator[Client]:
    """Give a client of the daemon. What goes wrong with it ends the command with one line."""
    try:
        with Client(target, retries=NO_RETRIES) as client:
            yield client
    except PredictdError as error:
        raise click.ClickException(_line(error)) from error


def fetch_model(client: Client, target: str, name: str, start: str = _START) -> Model:
    """Ask the daemon for a model, as the first call on a connection: it shows whether there is a daemon."""
    with reaching(target, start):
        return client.model(name, deadline=_METADATA_SECONDS)


def fetch_models(client: Client, target: str) -> tuple[Model, ...]:
    """Ask the daemon for all models, as the first call on a connection."""
    with reaching(target):
        return client.models(deadline=_METADATA_SECONDS)


@contextmanager
def reaching(target: str, start: str = _START) -> Iterator[None]:
    """Make the first call on a connection in this: it says so when there is no daemon."""
    try:
        yield
    except (UnavailableError, DeadlineExceededError) as error:
        raise click.ClickException(
            f"no daemon answers at {target} ({_line(error)}); start one with: {start}"
        ) from error


def _line(error: PredictdError) -> str:
    return " ".join(error.message.split())
