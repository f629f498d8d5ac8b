"""From flags, environment and predictd.toml to settings.

A flag beats the environment, the environment beats the file, the file beats the default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictd.server.config.errors import ConfigError
from predictd.server.config.settings import CONFIG_FILE, Settings, options
from predictd.server.config.small_file import load_toml, read_small_file
from predictd.server.config.units import Kind, format_duration, suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping


def resolve(flags: Mapping[str, object], environ: Mapping[str, str], folder: Path = Path()) -> Settings:
    """Settle every option.

    Args:
        flags: What the command line gave, by key: text, True or False, or a tuple of texts for what may be several.
            None and empty mean not given.
        environ: Environment variables. Unknown ones with our prefix are left alone: Kubernetes makes some up
            for a service that is called predictd. An empty one is as good as none.
        folder: Where predictd.toml is looked for.

    Raises:
        ConfigError: A value is wrong, or the file is.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for option in options():
        if flags.get(option.key) not in (None, ()):
            origins[option.key], raw = option.flag, flags[option.key]
        elif environ.get(option.variable):
            origins[option.key], raw = option.variable, environ[option.variable]
        else:
            continue
        try:
            values[option.field] = option.kind.read(raw)
        except ValueError as error:
            raise ConfigError(origins[option.key], str(error)) from error
    path = values.get("config")
    if path is None and (folder / CONFIG_FILE).exists():
        path = folder / CONFIG_FILE
    if path is not None:
        by_key = {option.key: option for option in options() if option.in_file}
        for key, value in _read_toml(path, {key: option.kind for key, option in by_key.items()}).items():
            if key not in origins:
                origins[key] = str(path)
                values[by_key[key].field] = _relative_to(path.parent, value)
    return _checked(Settings(**values | {"config": path, "origins": origins}))


def _relative_to(folder: Path, value: object) -> object:
    # A daemon that systemd starts has no useful working directory; the file's own folder is a stable one.
    if isinstance(value, tuple):
        return tuple(folder / each if isinstance(each, Path) else each for each in value)
    return folder / value if isinstance(value, Path) else value


def _checked(settings: Settings) -> Settings:
    if settings.grpc == settings.http and settings.grpc.port != 0:
        raise ConfigError(_places(settings, "grpc", "http"), f"both cannot listen on {settings.grpc}")
    _check_access(settings)
    if settings.load_model and settings.model_control != "explicit":
        raise ConfigError(
            _places(settings, "load_model"),
            f"with model_control {settings.model_control} every model is loaded; only explicit chooses",
        )
    if settings.lame_duck_ns > settings.drain_timeout_ns:
        raise ConfigError(
            _places(settings, "lame_duck", "drain_timeout"),
            f"the lame duck time ({format_duration(settings.lame_duck_ns)}) is part of the drain timeout "
            f"({format_duration(settings.drain_timeout_ns)}) and cannot be longer",
        )
    return settings


def _check_access(settings: Settings) -> None:
    """Check that what concerns TLS and tokens goes together."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        there, missing = (
            ("tls_key", "tls_certificate")
            if settings.tls_certificate is None
            else ("tls_certificate", "tls_key")
        )
        raise ConfigError(
            _places(settings, there), f"{missing} is missing: each is of no use without the other"
        )
    if settings.tls_certificate is None and settings.tls_client_ca is not None:
        raise ConfigError(
            _places(settings, "tls_client_ca"), "without tls_certificate nobody can show a certificate"
        )
    if settings.tls_certificate is None and settings.http_tls == "on":
        raise ConfigError(_places(settings, "http_tls"), "there is no tls_certificate to encrypt with")
    if settings.tokens is not None and settings.allow_control:
        raise ConfigError(
            _places(settings, "allow_control", "tokens"),
            "with tokens, who has the role control gives commands, and nobody else",
        )


def _places(settings: Settings, *keys: str) -> str:
    return " and ".join(f"{key} ({settings.origin(key)})" for key in keys)


def _read_toml(path: Path, kinds: Mapping[str, Kind[Any]]) -> dict[str, Any]:
    """Read a TOML file whose keys must all be known.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has an unknown key or a wrong value.
    """
    try:
        text = read_small_file(path).decode()
    except OSError as error:
        raise ConfigError(str(path), str(error.strerror).lower()) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), "not TOML: not UTF-8 text") from error
    except ValueError as error:
        raise ConfigError(str(path), str(error)) from error
    try:
        table = load_toml(text)
    except ValueError as error:
        raise ConfigError(str(path), f"not TOML: {error}") from error
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kinds:
            raise ConfigError(str(path), f"unknown key {key!r}{suggestion(key, kinds)}")
        try:
            values[key] = kinds[key].read_toml(value)
        except ValueError as error:
            raise ConfigError(str(path), f"{key}: {error}") from error
    return values
