"""Names of files that a model's configuration, or the model itself, gives: always of something in its folder.

The one rule for all of them; where a link in the folder leads is for `predictd.server.repository.bounds` to see.
"""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath
from typing import Final

_MOST_BYTES: Final = 1024
# Control characters, what turns the direction of writing, lone surrogates: a line of the log would show another name.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def check_file_name(text: str) -> None:
    """Raise ValueError unless this names a file inside a folder, by a path relative to it."""
    if not text:
        raise ValueError("expected the name of a file, not an empty string")
    shown = ascii(text if len(text) <= 80 else f"{text[:80]}…")
    if any(unicodedata.category(character) in _HIDDEN for character in text):
        raise ValueError(f"{shown} has characters that cannot be seen")
    if len(text.encode()) > _MOST_BYTES:
        raise ValueError(f"{shown} is longer than {_MOST_BYTES} bytes")
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{text!r} leads out of the model's folder")
