"""Reading a file that people write: a regular one, and not larger than anybody writes."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

BYTES_MAX: Final = 2**20
# What the TOML reader does with keys in keys takes time with the square of their number.
_KEYS_MAX: Final = 256
_KEYS = re.compile(r"[.\[{]")
_STRINGS = re.compile(r"""\"(?:[^"\\]|\\.)*"|'[^']*'""")


def read_small_file(path: Path, bytes_max: int = BYTES_MAX) -> bytes:
    """The content of a file.

    Args:
        path: Of the file, or of a link to it.
        bytes_max: A larger file is refused, whatever it is.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, or too large; one line.
    """
    # Without waiting: whoever opens a pipe waits for somebody to write into it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise ValueError(f"larger than {bytes_max} bytes: no such file is")
    return content


def load_toml(text: str) -> dict[str, Any]:
    """Read TOML.

    Raises:
        ValueError: It is none, or nested too deeply; one line.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > _KEYS_MAX and len(_KEYS.findall(_STRINGS.sub("", line))) > _KEYS_MAX:
            raise ValueError(f"nested too deeply (at line {number}, column 1)")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
