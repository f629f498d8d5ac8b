"""The settings as command line options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from predictd.server.config.errors import ConfigError
from predictd.server.config.option import Option
from predictd.server.config.resolve import resolve
from predictd.server.config.settings import CONFIG_FILE, Settings, options
from predictd.server.supervise.carrier import carrier, native_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

F = TypeVar("F", bound="Callable[..., Any]")

SETTINGS_EPILOG = (
    "Each option is also an environment variable, such as PREDICTD_MAX_DELAY for --max-delay, and a key of "
    f"{CONFIG_FILE}, such as max_delay. A flag beats the environment, the environment beats the file. "
    "Durations carry a unit (500us, 10ms, 2s, 1m, 1h), sizes too (64KiB, 256MiB)."
)


def settings_options(command: F) -> F:
    """Give a command all options of the daemon; `settings_from` takes what it is then called with."""
    for option in reversed(options()):
        command = _click_option(option)(command)
    return command


def some_settings_options(*keys: str) -> Callable[[F], F]:
    """Give a command some of the daemon's options, by their keys; the others come from environment and file."""

    def decorate(command: F) -> F:
        for option in reversed(options()):
            if option.key in keys:
                command = _click_option(option)(command)
        return command

    return decorate


def _click_option(option: Option) -> Callable[[F], F]:
    if not option.flag.startswith("--"):
        return click.argument(option.key, nargs=-1, metavar=f"{option.flag}...")
    # Values stay text here: one place reads them, wherever they come from.
    switch, several = isinstance(option.default, bool), isinstance(option.default, tuple)
    return click.option(
        f"{option.flag}/--no-{option.flag[2:]}" if switch else option.flag,
        option.key,
        # Of one with several values, () is what says that nobody gave any.
        default=() if several else None,
        multiple=several,
        metavar=None if switch else option.kind.metavar,
        help=f"{option.help}  [default: {option.default_text}]",
    )


def settings_from(flags: Mapping[str, object]) -> Settings:
    """Settings of the daemon from a command's options, the environment and predictd.toml.

    Raises:
        click.UsageError: Something is wrong with one of them.
    """
    try:
        settings = resolve(flags, os.environ)
        carrier(settings.frontend, native_problem())
        return settings
    except ConfigError as error:
        raise click.UsageError(str(error), ctx=click.get_current_context(silent=True)) from error
