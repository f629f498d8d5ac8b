"""Certificate, key and tokens: read at the start, looked at every second, and handed to front ends.

The supervisor alone reads the files, so all front ends have the same, and a worker never has them. What cannot be
taken changes nothing. Files are rarely replaced in one step, so what has changed is read once it was seen alike at two
looks; at once when somebody says so.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from predictd.server.access.certificates import CertificateError, ask_clients, server_context, validity
from predictd.server.access.material import Material, write_material
from predictd.server.access.tokens import FILE_BYTES_MAX, Keyring, TokensError, parse_tokens
from predictd.server.config.settings import Settings
from predictd.server.config.small_file import read_small_file

LOOK_SECONDS = 1.0
CERTIFICATE, TOKENS = "certificate", "tokens"

_log = logging.getLogger(__name__)

T = TypeVar("T")
Look = tuple[object, ...]


class CredentialsError(Exception):
    """What a file holds cannot be taken. The message is one line and names option and file."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What clients are shown.

    Attributes:
        chain: In PEM, as the key and the authorities.
        context: The same for Python's TLS.
        expiry_unix_seconds: When one of the chain ceases to be valid.
    """

    chain: bytes
    key: bytes
    client_ca: bytes
    context: ssl.SSLContext = field(compare=False)
    expiry_unix_seconds: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the file of tokens holds, and what it says."""

    data: bytes
    keyring: Keyring = field(compare=False)


class Kept(Generic[T]):
    """What some files held when they were last good.

    Args:
        paths: Of the files.
        load: Reads them; raises CredentialsError.

    Attributes:
        value: What they held.
        failures: How often what was new could not be taken.

    Raises:
        CredentialsError: They are not good now.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self._paths = paths
        self._load = load
        self._taken = self._seen = self._look()
        self.value = load()
        self.failures = 0
        self._failure: str | None = None

    def refresh(self, *, at_once: bool) -> str | None:
        """Look at the files.

        Args:
            at_once: Read them although they may be on their way.

        Returns:
            None where there is nothing new, empty when it was taken, and else why not.
        """
        look = self._look()
        settled, self._seen = look == self._seen, look
        if not at_once and (not settled or (look == self._taken and self._failure is None)):
            return None
        self._taken, before = look, self._failure
        try:
            value = self._load()
        except CredentialsError as error:
            # What is wrong may pass by itself: a certificate whose time has not come, a disk that does not answer.
            self._failure = str(error)
            if self._failure == before and not at_once:
                return None
            self.failures += 1
            return self._failure
        self._failure = None
        changed, self.value = value != self.value, value
        return "" if changed else None

    def _look(self) -> Look:
        """What tells files from others, wherever links lead."""
        return tuple(map(_mark, self._paths))


class Credentials:
    """All that callers are told from strangers by.

    Args:
        settings: Say where the files are.

    Raises:
        CredentialsError: One of them is not good.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._certificate: Kept[Certificate] | None = None
        self._tokens: Kept[Tokens] | None = None
        self._asked = asyncio.Event()
        if settings.tls_certificate is not None and settings.tls_key is not None:
            paths = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
            self._certificate = Kept(
                [path for path in paths if path is not None],
                lambda: _read_certificate(*paths, now_unix_seconds=time.time()),
            )
        if settings.tokens is not None:
            path = settings.tokens
            self._tokens = Kept([path], lambda: _read_tokens(path))

    @property
    def keyring(self) -> Keyring | None:
        """Who may do what; None where nobody needs a token."""
        return None if self._tokens is None else self._tokens.value.keyring

    @property
    def context(self) -> ssl.SSLContext | None:
        """TLS with the present certificate; None where there is none."""
        return None if self._certificate is None else self._certificate.value.context

    @property
    def expiry_unix_seconds(self) -> float | None:
        """When the present certificate ceases to be valid."""
        return None if self._certificate is None else self._certificate.value.expiry_unix_seconds

    @property
    def failures(self) -> dict[str, int]:
        """How often what was new could not be taken, by what it is."""
        kept = {CERTIFICATE: self._certificate, TOKENS: self._tokens}
        return {what: each.failures for what, each in kept.items() if each is not None}

    @property
    def any(self) -> bool:
        """There are such files."""
        return bool(self._certificate or self._tokens)

    def open(self) -> int:
        """A descriptor of a file in memory that holds it all, for a front end. The caller closes it."""
        certificate = None if self._certificate is None else self._certificate.value
        return write_material(
            Material(
                certificate=b"" if certificate is None else certificate.chain,
                key=b"" if certificate is None else certificate.key,
                client_ca=b"" if certificate is None else certificate.client_ca,
                tokens=b"" if self._tokens is None else self._tokens.value.data,
            )
        )

    def look_now(self) -> None:
        """Look at once (SIGHUP)."""
        self._asked.set()

    async def run(self, on_change: Callable[[], None]) -> None:
        """Look from time to time, until cancelled.

        Args:
            on_change: Called when something new was taken.
        """
        while self.any:
            try:
                await asyncio.wait_for(self._asked.wait(), LOOK_SECONDS)
            except TimeoutError:
                at_once = False
            else:
                self._asked.clear()
                at_once = True
            if self.refresh(at_once=at_once):
                on_change()

    def refresh(self, *, at_once: bool) -> bool:
        """Look at all files. Whether something new was taken."""
        changed = False
        for what, kept in ((CERTIFICATE, self._certificate), (TOKENS, self._tokens)):
            outcome = None if kept is None else kept.refresh(at_once=at_once)
            if outcome == "":
                changed = True
                _log.info("%s: what is new is taken", what)
            elif outcome is not None:
                _log.error("%s: what is new cannot be taken, the old stays: %s", what, outcome)
        return changed

    def warnings(self) -> list[str]:
        """What an operator should know of the files."""
        settings, found = self._settings, []
        if settings.tls_key is not None and _mode(settings.tls_key) & stat.S_IROTH:
            found.append(f"tls_key: everybody on this machine can read {settings.tls_key}")
        if self._certificate is not None:
            days = (self._certificate.value.expiry_unix_seconds - time.time()) / 86400
            if days < 14:
                found.append(f"tls_certificate: {settings.tls_certificate} is valid for {days:.0f} days more")
        return found


def _read_certificate(
    chain_path: Path | None, key_path: Path | None, ca_path: Path | None, *, now_unix_seconds: float
) -> Certificate:
    chain, key = _read("tls_certificate", chain_path), _read("tls_key", key_path)
    client_ca = _read("tls_client_ca", ca_path)
    where = f"tls_certificate: {chain_path}"
    try:
        valid = validity(chain)
        context = server_context(chain, key)
    except CertificateError as error:
        raise CredentialsError(f"{where}: {error}") from error
    if now_unix_seconds >= valid.to_unix_seconds:
        raise CredentialsError(f"{where}: it expired on {_date(valid.to_unix_seconds)}")
    if now_unix_seconds < valid.from_unix_seconds:
        raise CredentialsError(f"{where}: it is not valid before {_date(valid.from_unix_seconds)}")
    if client_ca:
        try:
            ask_clients(context, client_ca)
        except CertificateError as error:
            raise CredentialsError(f"tls_client_ca: {ca_path}: {error}") from error
    return Certificate(chain, key, client_ca, context, valid.to_unix_seconds)


def _read_tokens(path: Path) -> Tokens:
    data = _read("tokens", path)
    if _mode(path) & stat.S_IWOTH:
        raise CredentialsError(f"tokens: {path}: everybody on this machine can write to it")
    try:
        return Tokens(data, parse_tokens(data))
    except TokensError as error:
        raise CredentialsError(f"tokens: {path}: {error}") from error


def _read(option: str, path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return read_small_file(path, FILE_BYTES_MAX)
    except OSError as error:
        raise CredentialsError(f"{option}: {path}: {str(error.strerror).lower()}") from error
    except ValueError as error:
        raise CredentialsError(f"{option}: {path}: {error}") from error


def _mark(path: Path) -> Look | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _date(unix_seconds: float) -> str:
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%d %H:%M} UTC"
