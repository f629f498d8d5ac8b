"""The folder for what can be made again: bounded, optional, shared by any number of processes and daemons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """Where results of long work are kept for the next time.

    Attributes:
        directory: May not be there yet, and may turn out not to be writable.
        limit_bytes: What lies in it at most.
    """

    directory: Path
    limit_bytes: int
