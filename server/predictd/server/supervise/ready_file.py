"""The ready file: it is there once the daemon is ready, and holds the bound addresses."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


def clear_ready_file(path: Path) -> None:
    """Remove what an earlier daemon left, which would announce this one too early.

    Raises:
        OSError: The folder does not exist or cannot be written to, so that no ready file could be made later either.
    """
    temporary = _temporary(path)
    temporary.touch()
    temporary.unlink()
    path.unlink(missing_ok=True)


def write_ready_file(path: Path, addresses: Mapping[str, str]) -> None:
    """Write the bound addresses in one step: who sees the file sees all of it.

    Raises:
        OSError: It cannot be written.
    """
    temporary = _temporary(path)
    try:
        temporary.write_text(json.dumps(addresses) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
