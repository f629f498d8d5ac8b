from __future__ import annotations

from pathlib import Path

import pytest

from predictd.server.config.cache_folder import cache_folder
from predictd.server.config.settings import Settings


@pytest.mark.parametrize(
    ("settings", "environ", "folder"),
    [
        (Settings(), {"HOME": "/home/a"}, "/home/a/.cache/predictd"),
        (Settings(), {"HOME": "/home/a", "XDG_CACHE_HOME": "/c"}, "/c/predictd"),
        (Settings(), {"HOME": "/home/a", "XDG_CACHE_HOME": "c"}, "/home/a/.cache/predictd"),
        (Settings(), {"CACHE_DIRECTORY": "/var/cache/a:/var/cache/b", "HOME": "/h"}, "/var/cache/a"),
        (Settings(cache_dir=Path("/x")), {"CACHE_DIRECTORY": "/var/cache/a"}, "/x"),
        (Settings(cache_dir=Path("/x"), cache_limit_bytes=0), {"HOME": "/h"}, None),
        (Settings(), {}, None),
        (Settings(), {"HOME": "nowhere"}, None),
    ],
)
def test_the_cache_is_where_the_user_or_the_system_says(
    settings: Settings, environ: dict[str, str], folder: str | None
) -> None:
    assert cache_folder(settings, environ) == (None if folder is None else Path(folder))
