"""Results in the cache: for each model's content a folder, in it for each kind of CPU the result and its plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from predictd.server.config.tuned import Here, Tuned, table_of
from predictd.server.repository.tuning import TunedError, read_result, result_file

_PRIVATE = 0o700


def earlier(folder: Path | None, key: str, here: Here) -> Tuned | None:
    """What an earlier run found here; None if there is nothing, or nothing that can be read."""
    if folder is None:
        return None
    try:
        return read_result(result_file(folder, key, here))[1]
    except TunedError:
        return None


def keep(folder: Path, key: str, here: Here, content: dict[str, Any], picture: str | None) -> Path:
    """Write a result. Returns its file; the plot lies beside it.

    Raises:
        OSError: The cache cannot be written.
    """
    path = result_file(folder, key, here)
    path.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    if picture is not None:
        _write(path.with_suffix(".svg"), picture)
    _write(path, json.dumps(content, indent=2) + "\n")
    return path


def forget(folder: Path, key: str, here: Here) -> None:
    """Remove a result that turned out to be none.

    Raises:
        OSError: The cache cannot be written.
    """
    path = result_file(folder, key, here)
    for file in (path, path.with_suffix(".svg")):
        file.unlink(missing_ok=True)


def candidate_file(path: Path, key: str, tuned: Tuned) -> Path:
    """Write what a candidate's daemon takes for a result of tuning."""
    path.write_text(json.dumps({"model": {"key": key}, "tuned": table_of(tuned)}))
    return path


def _write(path: Path, text: str) -> None:
    """Nobody ever reads half of it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.replace(path)
