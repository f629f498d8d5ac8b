"""The folder of the cache is made over to the user that workers are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from predictd.server.launch.sandbox.confinement import SandboxRequest, User
from predictd.server.supervise.sandboxing import SandboxError, give_cache

NOBODY = User("nobody", 65534, 65534)
DAEMON = User("daemon", 1, 1)


def owner(path: Path) -> int:
    return path.lstat().st_uid


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_all_of_the_cache_is_given_and_nothing_else(tmp_path: Path) -> None:
    """A kind's folder that stayed root's would be of no use: nobody else's folder is believed."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    entry = cache / "plans" / "key"
    entry.mkdir(parents=True)
    for path in (entry / "plan", outside):
        path.write_bytes(b"x")
    (entry / "link").symlink_to(outside)
    (entry / "name").hardlink_to(outside)
    request = SandboxRequest(user=NOBODY, write=(str(cache),))
    give_cache(request)
    assert {owner(path) for path in (cache, *cache.rglob("*")) if path.name != "name"} == {NOBODY.uid}
    assert owner(outside) == 0
    # What has its owner already is left as it is.
    os.chown(entry, 0, 0)
    give_cache(request)
    assert owner(entry) == 0
    give_cache(SandboxRequest(user=DAEMON, write=(str(cache),)))
    assert owner(entry) == owner(cache) == DAEMON.uid


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match=r"^cache_dir .* cannot be given to user nobody: not a directory$"):
        give_cache(SandboxRequest(user=NOBODY, write=(str(tmp_path / "file" / "cache"),)))
