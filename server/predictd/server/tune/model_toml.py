"""Writing a result into a model's own file, every other byte of which stays as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from predictd.server.config.tuned import Tuned, table_of

_HEADER = re.compile(r"\[\s*tuned\s*\][^\S\n]*(?:#[^\n]*)?$")
_ANY_HEADER = re.compile(r"\s*\[")
_EMPTY = re.compile(r"(?:#.*)?")
_REMARK = "# Found by predictd tune. What stands above it, and what the daemon is told, wins."


class WriteError(Exception):
    """The file cannot be written. One line that names it."""


def tuned_lines(tuned: Tuned) -> list[str]:
    """The table as TOML."""
    return ["[tuned]", *(f"{key} = {json.dumps(value)}" for key, value in table_of(tuned).items())]


def with_table(text: str, tuned: Tuned) -> str:
    """The text of a model.toml with the table in it, instead of the one that it had.

    Raises:
        ValueError: Its table `tuned` stands there in a form that cannot be replaced.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    before, after = _around(text)
    if before and not before.endswith("\n"):
        before += newline
    remark = [] if before.rstrip().endswith(_REMARK) else [*([""] if before.strip() else []), _REMARK]
    table = newline.join([*remark, *tuned_lines(tuned), ""])
    written = f"{before}{table}{after}"
    expected = {**_parsed(text), "tuned": table_of(tuned)}
    try:
        same = _parsed(written) == expected
    except ValueError:
        same = False
    if not same:
        raise ValueError("its table 'tuned' is written in a way that cannot be replaced; remove it by hand")
    return written


def _parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text.replace("\r\n", "\n"))


def _around(text: str) -> tuple[str, str]:
    """What stands before the table and after it; everything before it if there is none."""
    lines = text.splitlines(keepends=True)
    first = next((at for at, line in enumerate(lines) if _HEADER.fullmatch(line.strip())), None)
    if first is None:
        return text, ""
    rest = range(first + 1, len(lines))
    last = next((at for at in rest if _ANY_HEADER.match(lines[at])), len(lines))
    # What is said just above the next table is said of that.
    while last > first + 1 and _EMPTY.fullmatch(lines[last - 1].strip()):
        last -= 1
    return "".join(lines[:first]), "".join(lines[last:])


def model_toml(name: str, version: int, path: Path) -> Path:
    """Where a model's own settings stand.

    Args:
        name: Of the model.
        version: Of its versions, any.
        path: What the engine loads for it, absolute.
    """
    folder = path if path.is_dir() else path.parent
    if folder.name == str(version) and folder.parent.name == name:
        return folder.parent / "model.toml"
    # A file that is a model by itself has its settings beside it.
    return path.with_suffix(".toml") if path.is_file() and path.stem == name else folder / "model.toml"


def write_table(path: Path, tuned: Tuned) -> None:
    """Put a result into a model.toml, which need not be there.

    Raises:
        WriteError: It cannot be read or written.
    """
    place = path.resolve()
    try:
        before = place.read_bytes().decode() if place.exists() else ""
        after = with_table(before, tuned)
        _replace(place, after.encode())
    except OSError as error:
        raise WriteError(f"{path}: {str(error.strerror).lower()}") from error
    except ValueError as error:
        raise WriteError(f"{path}: {error}") from error


def _replace(path: Path, content: bytes) -> None:
    """Nobody ever reads half of it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if path.exists():
            shutil.copymode(path, temporary)
        else:
            temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
