"""API tokens, and the file that says what each lets its bearer do.

A token is 256 random bits. The file has its SHA-256, from which nobody can find it: a slow hash is for secrets that
people make up, and would cost every call milliseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import msgspec

from predictd.server.access.identity import EVERY_MODEL, Identity, Role
from predictd.server.config.small_file import load_toml

FILE_BYTES_MAX = 1024 * 1024
TOKEN_PREFIX = "predictd_"  # noqa: S105 - what scanners of leaked secrets can look for
_TOKEN_BYTES = 32
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_INDEX_BYTES = 8
_NAME_CHARACTERS_MAX = 128

Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class TokensError(Exception):
    """The file cannot be understood. The message is one line, without the file's name."""


class Credential(NamedTuple):
    """What a caller showed. A tuple: one is made for each call.

    Attributes:
        digest: Of its token; empty where it showed none.
        alternative_names: Of its certificate, which was verified.
        common_name: The same certificate's.
    """

    digest: bytes = b""
    alternative_names: frozenset[str] = frozenset()
    common_name: str = ""


class TokenEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the file says of a token."""

    name: str
    hash: str
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)]
    models: Annotated[tuple[Pattern, ...], msgspec.Meta(min_length=1, max_length=256)] = EVERY_MODEL
    expires: datetime | None = None


class CertificateEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the file says of the certificates that have a name: one of the alternative names, or the common name."""

    name: str
    san: str = ""
    common_name: str = ""
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)]
    models: Annotated[tuple[Pattern, ...], msgspec.Meta(min_length=1, max_length=256)] = EVERY_MODEL


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: list[TokenEntry] = []
    certificate: list[CertificateEntry] = []


class Keyring:
    """Finds out who shows a credential.

    Args:
        tokens: Each with the digest of its token.
        certificates: In the order in which they are tried.
    """

    def __init__(
        self,
        tokens: Iterable[tuple[bytes, Identity]] = (),
        certificates: Iterable[tuple[CertificateEntry, Identity]] = (),
    ) -> None:
        self._tokens: dict[bytes, list[tuple[bytes, Identity]]] = {}
        for digest, identity in tokens:
            self._tokens.setdefault(digest[:_INDEX_BYTES], []).append((digest, identity))
        self._certificates = tuple(certificates)

    def find(self, credential: Credential) -> Identity | None:
        """Who it is. Of a caller with a token, the certificate does not count."""
        if shown := credential.digest:
            # The index is by the digest, of which nobody can choose a part; what is compared takes as long either way.
            for digest, identity in self._tokens.get(shown[:_INDEX_BYTES], ()):
                if hmac.compare_digest(digest, shown):
                    return identity
            return None
        for entry, identity in self._certificates:
            named = entry.san in credential.alternative_names if entry.san else False
            if named or (entry.common_name and entry.common_name == credential.common_name):
                return identity
        return None


def new_token() -> str:
    """A token that nobody has."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> bytes:
    """The digest by which a token is known."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def entry_text(entry: TokenEntry) -> str:
    """An entry as the file has it, with an empty line before it."""
    lines = ["", "[[token]]", f"name = {_quoted(entry.name)}", f"hash = {_quoted(entry.hash)}"]
    lines.append(f"roles = {_list(entry.roles)}")
    if entry.models != EVERY_MODEL:
        lines.append(f"models = {_list(entry.models)}")
    if entry.expires is not None:
        lines.append(f"expires = {entry.expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines) + "\n"


def hash_text(token: str) -> str:
    """A token's digest as the file has it."""
    return f"sha256:{digest_of(token).hex()}"


def parse_tokens(data: bytes) -> Keyring:
    """Read the file.

    Raises:
        TokensError: It is too large, no TOML, or says something that it cannot.
    """
    if len(data) > FILE_BYTES_MAX:
        raise TokensError(f"it has {len(data)} bytes and may have {FILE_BYTES_MAX}")
    try:
        file = msgspec.convert(load_toml(data.decode()), _File)
    except msgspec.ValidationError as error:
        raise TokensError(str(error)) from error
    except ValueError as error:
        raise TokensError(f"not TOML: {error}") from error
    names = [entry.name for entry in file.token] + [entry.name for entry in file.certificate]
    for name in names:
        _check_name(name)
    _check_unique("name", names)
    _check_unique("hash", [entry.hash for entry in file.token])
    return Keyring(map(_token, file.token), map(_certificate, file.certificate))


def _token(entry: TokenEntry) -> tuple[bytes, Identity]:
    match = _HASH.fullmatch(entry.hash)
    if match is None:
        raise TokensError(f"token {entry.name!r}: its hash is not sha256: and 64 hexadecimal digits")
    if entry.expires is None:
        return bytes.fromhex(match[1]), _identity(entry)
    if entry.expires.tzinfo is None:
        raise TokensError(f"token {entry.name!r}: expires has no time zone; write 2027-01-31T00:00:00Z")
    return bytes.fromhex(match[1]), _identity(entry, expires_unix_seconds=entry.expires.timestamp())


def _certificate(entry: CertificateEntry) -> tuple[CertificateEntry, Identity]:
    if bool(entry.san) == bool(entry.common_name):
        raise TokensError(f"certificate {entry.name!r}: give either san or common_name")
    return entry, _identity(entry)


def _identity(entry: TokenEntry | CertificateEntry, **more: Any) -> Identity:
    return Identity(entry.name, frozenset(entry.roles), entry.models, **more)


def _check_name(name: str) -> None:
    """Logs have it, so it is of characters that can be seen."""
    if not (name.isascii() and name.isprintable() and name.strip() == name and name):
        raise TokensError(f"the name {name!r} is empty, or not of printable ASCII")
    if len(name) > _NAME_CHARACTERS_MAX:
        raise TokensError(f"a name has {len(name)} characters and may have {_NAME_CHARACTERS_MAX}")


def _check_unique(what: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise TokensError(f"two entries have the {what} {value!r}")
        seen.add(value)


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, values))}]"


def _quoted(text: str) -> str:
    """A TOML string; JSON's escapes are among TOML's."""
    return msgspec.json.encode(str(text)).decode()
