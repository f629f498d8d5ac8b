"""Tokens: where they come from, how they are sent, and to whom."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

# Visible ASCII: anything else is no header, or another one.
_TOKEN = re.compile(r"[!-~]+")
_HERE = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\w+)?")

Token: TypeAlias = str | Callable[[], str]


class TokenFile:
    """A token in a file, which is read again at most once in a while: Kubernetes and others replace it there.

    Args:
        path: The file; white space around the token is left out.
        reread_seconds: How old a token may be before the file is looked at again.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(self, path: str | Path, *, reread_seconds: float = 1.0) -> None:
        self._path = Path(path)
        self._reread_seconds = reread_seconds
        self._token = self._path.read_text(encoding="utf-8").strip()
        self._read_again = time.monotonic() + reread_seconds

    def __call__(self) -> str:
        """The token as it is now; while the file is missing or empty, as it was last."""
        if time.monotonic() >= self._read_again:
            # It may just be replaced; a token that is no longer valid is refused by the server.
            with suppress(OSError, UnicodeDecodeError):
                self._token = self._path.read_text(encoding="utf-8").strip() or self._token
            self._read_again = time.monotonic() + self._reread_seconds
        return self._token

    # typing.override needs Python 3.12.
    def __repr__(self) -> str:  # type: ignore[explicit-override]
        return f"TokenFile({str(self._path)!r})"


def header(token: Token) -> str:
    """The value of `authorization`. No error has the token in it.

    Raises:
        TypeError: It is no string.
        ValueError: It has no form that can be sent.
    """
    text = token() if callable(token) else token
    if not isinstance(text, str):
        raise TypeError(f"a token is a string, not {type(text).__name__}")
    if not _TOKEN.fullmatch(text):
        what = "is empty" if not text else "has characters that a header cannot carry"
        raise ValueError(f"the token {what}")
    return f"Bearer {text}"


def stays_here(target: str) -> bool:
    """Whether what is sent to a target leaves this machine for sure not."""
    scheme, colon, rest = target.partition(":")
    if scheme in {"unix", "unix-abstract"}:
        return True
    if colon and scheme in {"dns", "passthrough"}:
        return bool(_HERE.fullmatch(rest.removeprefix("///")))
    addresses = rest if scheme in {"ipv4", "ipv6"} else target
    return all(_HERE.fullmatch(address) for address in addresses.split(","))
