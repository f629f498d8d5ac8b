"""Where what can be made again is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predictd.server.config.settings import Settings


def cache_folder(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """The cache's folder, which need not be there yet; None when nothing shall be kept.

    `CACHE_DIRECTORY` is what systemd sets for a unit with `CacheDirectory=` (systemd.exec(5)), several folders
    separated by colons; `XDG_CACHE_HOME` must be absolute, or counts as not set (XDG Base Directory Specification).
    """
    if settings.cache_limit_bytes == 0:
        return None
    if settings.cache_dir is not None:
        return settings.cache_dir.absolute()
    if systemd := environ.get("CACHE_DIRECTORY", "").partition(":")[0]:
        return Path(systemd)
    xdg = Path(environ.get("XDG_CACHE_HOME", ""))
    if xdg.is_absolute():
        return xdg / "predictd"
    home = environ.get("HOME", "")
    # A service without a home has no place of its own, and nothing is written where nobody expects it.
    return Path(home) / ".cache" / "predictd" if Path(home).is_absolute() else None
