import json
import logging
import mmap
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from predictd.engines.cache import MANIFEST, CacheFolder, NotMadeError
from tests.fixtures.daemon import REPOSITORY

LIMIT = 1000

# Makes the entry that it is told to. Says that it began, and goes on when it is told to.
MAKER = """\
import sys
from pathlib import Path
from predictd.engines.cache import CacheFolder

def build(folder):
    (folder / "data").write_bytes(b"whole")
    with open(sys.argv[2], "a") as builds:
        builds.write("x")
    if sys.argv[3] == "hold":
        print("building", flush=True)
        sys.stdin.read()

entry = CacheFolder(Path(sys.argv[1]), 1000).make("kind", "key", build)
assert entry is not None and (entry / "data").read_bytes() == b"whole"
print("made", flush=True)
"""


@pytest.fixture
def cache(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path / "cache", LIMIT)


def writes(content: bytes = b"content", name: str = "data") -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return build


def never(_: Path) -> None:
    raise AssertionError("built although it is there")


def used(entry: Path, seconds: int) -> None:
    """Pretend that an entry was last used then."""
    os.utime(entry / MANIFEST, (seconds, seconds))


def made(cache: CacheFolder, key: str, size: int, seconds: int) -> Path:
    entry = cache.make("kind", key, writes(b"x" * size))
    assert entry is not None
    used(entry, seconds)
    return entry


def maker(cache: CacheFolder, builds: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKER, str(cache.directory), str(builds), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


def left(cache: CacheFolder) -> set[str]:
    return {str(path.relative_to(cache.directory)) for path in cache.directory.glob("*/*")}


def test_what_is_not_there_is_none_and_makes_no_folder(cache: CacheFolder) -> None:
    assert cache.entry("kind", "key") is None
    assert not cache.directory.exists()


def test_an_entry_is_made_once(cache: CacheFolder) -> None:
    entry = cache.make("kind", "key", writes())
    assert entry is not None
    assert (entry / "data").read_bytes() == b"content"
    assert cache.make("kind", "key", never) == entry
    assert cache.entry("kind", "key") == entry
    assert left(cache) == {"kind/key"}


def test_kinds_and_keys_are_apart(cache: CacheFolder) -> None:
    for kind, key in (("a", "1"), ("a", "2"), ("b", "1")):
        cache.make(kind, key, writes(f"{kind}{key}".encode()))
    entry = cache.entry("a", "1")
    assert entry is not None
    assert (entry / "data").read_bytes() == b"a1"
    assert left(cache) == {"a/1", "a/2", "b/1"}


@pytest.mark.parametrize("name", ["", "..", "a/b", "a.making", ".hidden", "-x", "x" * 200])
def test_a_name_that_would_leave_its_place_is_refused(cache: CacheFolder, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name in the cache"):
        cache.make("kind", name, never)
    with pytest.raises(ValueError, match="cannot be a name in the cache"):
        cache.entry(name, "key")


def test_folders_are_for_their_owner_alone(cache: CacheFolder) -> None:
    entry = cache.make("kind", "key", writes())
    assert entry is not None
    for folder in (cache.directory, entry.parent, entry):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


# What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), NotMadeError("the reason")])
def test_what_cannot_be_made_is_one_warning_and_leaves_nothing(
    cache: CacheFolder, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise error

    assert cache.make("kind", "key", build) is None
    reason = "No space left on device" if isinstance(error, OSError) else "the reason"
    place = cache.directory / "kind" / "key"
    assert [record.getMessage() for record in caplog.records] == [
        f"going on without cache entry {place}: {reason}"
    ]
    assert left(cache) == set()


def test_a_mistake_of_the_builder_is_not_hidden(cache: CacheFolder) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.make("kind", "key", build)
    assert left(cache) == set()


def test_a_place_where_no_folder_can_be_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = CacheFolder(tmp_path / "file" / "cache", LIMIT)
    assert cache.make("kind", "key", never) is None
    assert cache.entry("kind", "key") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_folder_of_somebody_else_is_refused(
    cache: CacheFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.make("kind", "key", writes())
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert cache.entry("kind", "key") is None
    assert cache.make("kind", "key", never) is None
    assert cache.make("kind", "other", never) is None
    assert len(caplog.records) == 3
    for record in caplog.records:
        assert f"belongs to user {owner}, not to {owner + 1}" in record.getMessage()


def test_a_folder_that_others_can_write_is_refused(
    cache: CacheFolder, caplog: pytest.LogCaptureFixture
) -> None:
    cache.make("kind", "key", writes())
    (cache.directory / "kind").chmod(0o770)
    assert cache.entry("kind", "key") is None
    assert "can be written by other users (mode 770)" in caplog.text


def test_a_link_in_place_of_the_folder_is_refused(
    cache: CacheFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere").mkdir()
    cache.directory.mkdir()
    (cache.directory / "kind").symlink_to(tmp_path / "elsewhere")
    assert cache.make("kind", "key", never) is None
    assert "is not a folder" in caplog.text
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: (entry / "data").write_bytes(b"short"),
        lambda entry: (entry / "data").write_bytes(b"CONTENT"),
        lambda entry: (entry / "data").unlink(),
        lambda entry: (entry / MANIFEST).write_text("{}"),
        lambda entry: (entry / MANIFEST).write_text("[1"),
        lambda entry: (entry / MANIFEST).write_text(json.dumps({"files": {"data": 7}})),
        lambda entry: (entry / MANIFEST).unlink(),
    ],
    ids=["truncated", "rewritten", "file gone", "empty", "no JSON", "wrong JSON", "no manifest"],
)
def test_an_entry_that_was_spoilt_is_removed_and_made_again(
    cache: CacheFolder, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    entry = cache.make("kind", "key", writes())
    assert entry is not None
    spoil(entry)
    assert cache.entry("kind", "key") is None
    assert [record.getMessage() for record in caplog.records] == [
        f"removing cache entry {entry}: its files are not as they were made"
    ]
    assert left(cache) == set()
    assert cache.make("kind", "key", writes()) == entry


def test_a_spoilt_entry_is_replaced_at_once_by_who_makes_it(cache: CacheFolder) -> None:
    entry = cache.make("kind", "key", writes())
    assert entry is not None
    (entry / "data").write_bytes(b"short")
    assert cache.make("kind", "key", writes(b"anew")) == entry
    assert (entry / "data").read_bytes() == b"anew"


def test_a_useless_entry_is_discarded_with_its_reason(
    cache: CacheFolder, caplog: pytest.LogCaptureFixture
) -> None:
    entry = cache.make("kind", "key", writes())
    cache.discard("kind", "key", "the reason")
    assert caplog.messages == [f"removing cache entry {entry}: the reason"]
    assert cache.entry("kind", "key") is None
    assert left(cache) == set()


# The bound --------------------------------------------------------------------------------------------------------


def test_what_was_not_used_for_longest_goes_first(cache: CacheFolder) -> None:
    made(cache, "a", 400, 100)
    made(cache, "b", 400, 200)
    assert cache.entry("kind", "a") is not None
    made(cache, "c", 400, 300)
    assert left(cache) == {"kind/a", "kind/c"}


def test_no_more_goes_than_must(cache: CacheFolder) -> None:
    for second, key in enumerate("abcd"):
        made(cache, key, 250, second)
    made(cache, "e", 300, 9)
    assert left(cache) == {"kind/c", "kind/d", "kind/e"}


def test_all_kinds_count(cache: CacheFolder) -> None:
    used(made(cache, "a", 600, 1), 1)
    assert cache.make("other", "b", writes(b"x" * 600)) is not None
    assert left(cache) == {"other/b"}


def test_what_alone_passes_the_limit_is_not_kept(
    cache: CacheFolder, caplog: pytest.LogCaptureFixture
) -> None:
    made(cache, "a", 400, 1)
    assert cache.make("kind", "b", writes(b"x" * 1001)) is None
    assert "its 1001 bytes are more than the cache's limit, 1000" in caplog.text
    assert left(cache) == {"kind/a"}


def test_files_of_others_are_left_alone(cache: CacheFolder) -> None:
    foreign = cache.directory / "tuned" / "model" / "result.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"x" * 5000)
    made(cache, "a", 600, 1)
    made(cache, "b", 600, 2)
    assert foreign.exists()
    assert left(cache) == {"tuned/model", "kind/b"}


def test_what_is_mapped_outlives_its_removal(cache: CacheFolder) -> None:
    entry = made(cache, "a", 800, 1)
    with (entry / "data").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        made(cache, "b", 800, 2)
        assert not entry.exists()
        assert data[:] == b"x" * 800


# Several makers ---------------------------------------------------------------------------------------------------


def test_processes_that_want_the_same_make_it_once(cache: CacheFolder, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    with maker(cache, builds, "hold") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "building\n"
        with maker(cache, builds, "") as second, maker(cache, builds, "") as third:
            for process in (first, second, third):
                assert process.communicate(timeout=60)[0] == "made\n"
    assert builds.read_text() == "x"
    assert left(cache) == {"kind/key"}


def test_the_wait_for_another_maker_is_bounded(
    cache: CacheFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with maker(cache, tmp_path / "builds", "hold") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "building\n"
        assert cache.make("kind", "key", never, wait_seconds=0.1) is None
        assert "another process has been at work on it for 0.1 s" in caplog.text
        assert cache.entry("kind", "key") is None
        # Who makes room meanwhile leaves it alone.
        made(cache, "other", 900, 1)
        assert (cache.directory / "kind" / "key.making").exists()
        assert other.communicate(timeout=60)[0] == "made\n"


@pytest.mark.parametrize("key", ["key", "other"])
def test_what_a_dead_maker_left_is_removed(cache: CacheFolder, tmp_path: Path, key: str) -> None:
    with maker(cache, tmp_path / "builds", "hold") as dead:
        assert dead.stdout is not None
        assert dead.stdout.readline() == "building\n"
        dead.kill()
    assert left(cache) == {"kind/key.making", "kind/key.lock"}
    assert cache.make("kind", key, writes(), wait_seconds=0) is not None
    assert left(cache) == {f"kind/{key}"}


def test_one_at_a_time_while_entries_come_and_go(cache: CacheFolder) -> None:
    """The lock's file is removed by whoever held it, under the eyes of those who wait for it."""
    at_work = threading.Lock()
    failures: list[str] = []

    def build(folder: Path) -> None:
        if not at_work.acquire(blocking=False):
            failures.append("two at work on one key")
            return
        try:
            (folder / "data").write_bytes(b"content")
        finally:
            at_work.release()

    def work() -> None:
        for _ in range(20):
            if cache.make("kind", "key", build) is None:
                failures.append("none made")
            cache.discard("kind", "key", "for the next round")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert left(cache) <= {"kind/key"}


def test_an_entry_is_replaced_whether_or_not_it_is_there(cache: CacheFolder) -> None:
    for content in (b"first", b"second"):
        cache.replace("kind", "key", writes(content))
        entry = cache.entry("kind", "key")
        assert entry is not None
        assert (entry / "data").read_bytes() == content


def test_what_waiting_raises_ends_the_wait(cache: CacheFolder) -> None:
    class EnoughError(Exception):
        pass

    def enough() -> None:
        raise EnoughError

    def hold(folder: Path) -> None:
        with pytest.raises(EnoughError):
            cache.make("kind", "key", never, waiting=enough)
        (folder / "data").write_bytes(b"made")

    assert cache.make("kind", "key", hold) is not None
