"""`predictd token new`: a token that a daemon lets in, told once."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from predictd.server.access.identity import Role
from predictd.server.access.tokens import (
    TokenEntry,
    TokensError,
    entry_text,
    hash_text,
    new_token,
    parse_tokens,
)
from predictd.server.cli.parameters import duration

# Whoever reads it learns who may do what; nobody learns a token from it.
_MODE = 0o640


@click.group
def token() -> None:
    """Make tokens for --tokens."""


@token.command
@click.option("--name", required=True, help="Whose it is: what logs call it, and what tells entries apart.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="What it lets its bearer do. May be repeated.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATTERN",
    help="With which models, such as 'resnet*'. May be repeated.  [default: *]",
)
@click.option(
    "--expires-in",
    "expires_in_ns",
    metavar="DURATION",
    callback=duration,
    help="After which it ends, such as 720h.",
)
@click.option(
    "--tokens",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    envvar="PREDICTD_TOKENS",
    show_envvar=True,
    help="Add the entry to this file. Without it the entry is printed below the token.",
)
def new(
    name: str, roles: tuple[str, ...], models: tuple[str, ...], expires_in_ns: int | None, path: Path | None
) -> None:
    """Print a new token. Only its hash is kept, so it cannot be shown again."""
    secret = new_token()
    entry = TokenEntry(
        name=name,
        hash=hash_text(secret),
        roles=tuple(map(Role, dict.fromkeys(roles))),
        models=tuple(dict.fromkeys(models)) or ("*",),
        expires=None if expires_in_ns is None else _after(expires_in_ns),
    )
    text = entry_text(entry)
    try:
        before = b"" if path is None or not path.exists() else path.read_bytes()
        _check(before + text.encode(), path)
        if path is not None:
            _append(path, before, text)
    except OSError as error:
        raise click.ClickException(f"{path}: {str(error.strerror).lower()}") from error
    click.echo(secret)
    if path is None:
        click.echo(text, nl=False)


def _after(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(time.time() + nanoseconds / 1e9, UTC)


def _check(data: bytes, path: Path | None) -> None:
    try:
        parse_tokens(data)
    except TokensError as error:
        raise click.ClickException(f"{path}: {error}" if path else str(error)) from error


def _append(path: Path, before: bytes, text: str) -> None:
    """Add an entry in one write, so that a daemon never reads half of it."""
    line_end = "" if not before or before.endswith(b"\n") else "\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
    try:
        os.write(fd, (line_end + text).encode())
    finally:
        os.close(fd)
