"""The folder for what can be made again: bounded, optional, shared by any number of processes and daemons.

Theory of operation. An entry is a folder of files that are never changed once it has its name:

    directory/kind/key/             an entry: its files, and manifest.json, which is written last
    directory/kind/key.making/      what the holder of the lock is making now
    directory/kind/key.lock         flock(2): one maker at a time; the kernel releases it when the holder dies

An entry gets its name by one rename and loses it by one rename, so a reader finds it whole or not at all. Removing
one that somebody has mapped harms nobody: mapped memory survives the name. Nothing is ever written or truncated in
place, which would not be so. Whoever holds the lock of a key finds what a dead maker left under it, and removes it.

Use is noted in the manifest's modification time, and what was not used for longest goes first when an addition
passes the limit. Folders without a manifest are not ours and are left alone.

What lies here becomes code and weights, so the folders of the kinds belong to us and nobody else writes them;
one that does not is refused. No failure here is one of the caller's: it is a warning, and work without the cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "manifest.json"
WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.05
_MAKING = ".making"
_LOCK = ".lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,120}")

_log = logging.getLogger(__name__)


class NotMadeError(Exception):
    """An entry cannot be made. The message is one line, for the log."""


def _patient() -> None:
    """Wait on."""


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """Where results of long work are kept for the next time.

    Attributes:
        directory: May not be there yet, and may turn out not to be writable.
        limit_bytes: What lies in it at most.
    """

    directory: Path
    limit_bytes: int

    def entry(self, kind: str, key: str) -> Path | None:
        """The folder of an entry, None when it is not there; one whose files are not as they were made is removed.

        Args:
            kind: Who keeps it, such as the engine's name.
            key: All that the content depends on, as a short text without dots.
        """
        place = self._place(kind, key)
        try:
            return self._find(place)
        except OSError as error:
            self._without(place, error)
        return None

    def make(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], None],
        *,
        wait_seconds: float = WAIT_SECONDS,
        waiting: Callable[[], None] = _patient,
    ) -> Path | None:
        """The folder of an entry, made now if it is not there.

        Args:
            kind: As for `entry`.
            key: As for `entry`.
            build: Writes the entry's files into the folder that it is given; raises OSError or NotMadeError
                when it cannot.
            wait_seconds: How long to wait for another process that is making the same.
            waiting: Called several times a second while it waits. What it raises ends the wait, and is raised here.

        Returns:
            The entry's folder; None when there is none, for a reason that was logged.
        """
        place = self._place(kind, key)
        try:
            found = self._find(place)
            if found is not None:
                return found
            _make_ours(place.parent)
            with _locked(place, wait_seconds, waiting):
                if not _is_whole(place):
                    _remove(place)
                    self._add(place, build)
                return place
        except (OSError, NotMadeError) as error:
            self._without(place, error)
        return None

    def replace(self, kind: str, key: str, build: Callable[[Path], None]) -> None:
        """Make an entry anew, whether or not it is there; left as it is while another process is at work on it.

        Args:
            kind: As for `entry`.
            key: As for `entry`.
            build: As for `make`.
        """
        place = self._place(kind, key)
        try:
            _make_ours(place.parent)
            with _locked(place, 0):
                _remove(place)
                self._add(place, build)
        except (OSError, NotMadeError) as error:
            self._without(place, error)

    def discard(self, kind: str, key: str, reason: str) -> None:
        """Remove an entry that turned out to be useless."""
        place = self._place(kind, key)
        _log.warning("removing cache entry %s: %s", place, reason)
        try:
            with _locked(place, 0):
                _remove(place)
        except (OSError, NotMadeError) as error:
            self._without(place, error)

    def _place(self, kind: str, key: str) -> Path:
        for name in (kind, key):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a name in the cache")
        return self.directory / kind / key

    def _find(self, place: Path) -> Path | None:
        if not place.is_dir():
            return None
        _check_ours(place.parent)
        if _is_whole(place):
            _note_use(place)
            return place
        self._remove_broken(place)
        return None

    def _remove_broken(self, place: Path) -> None:
        with contextlib.suppress(NotMadeError), _locked(place, 0):
            # Another process may have made it anew since; one that is at work on it now removes it itself.
            if not _is_whole(place):
                _log.warning("removing cache entry %s: its files are not as they were made", place)
                _remove(place)

    def _without(self, place: Path, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _log.warning("going on without cache entry %s: %s", place, reason)

    def _add(self, place: Path, build: Callable[[Path], None]) -> None:
        """Holding the lock: build, check, name, and make room."""
        making = _beside(place, _MAKING)
        making.mkdir(mode=0o700)
        try:
            build(making)
            size_bytes = _seal(making)
            if size_bytes > self.limit_bytes:
                raise NotMadeError(
                    f"its {size_bytes} bytes are more than the cache's limit, {self.limit_bytes}"
                )
            making.rename(place)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        _sync(place.parent)
        self._make_room(place)

    def _make_room(self, newest: Path) -> None:
        """Remove what was not used for longest until the limit holds, and what dead makers left."""
        entries = []
        for place in self._places():
            with contextlib.suppress(OSError, ValueError):
                entries.append((_used_ns(place), _size_bytes(place), place))
        excess_bytes = sum(size for _, size, _ in entries) - self.limit_bytes
        for _, size_bytes, place in sorted(entries):
            if excess_bytes <= 0:
                break
            if place != newest and _remove_unless_busy(place):
                excess_bytes -= size_bytes
        for making in self.directory.glob(f"*/*{_MAKING}"):
            _remove_unless_busy(making.with_name(making.name.removesuffix(_MAKING)), entry=False)

    def _places(self) -> Iterator[Path]:
        for manifest in self.directory.glob(f"*/*/{MANIFEST}"):
            if _NAME.fullmatch(manifest.parent.name):
                yield manifest.parent


# The lock ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(place: Path, wait_seconds: float, waiting: Callable[[], None] = _patient) -> Iterator[None]:
    """Hold the lock of an entry. Raises NotMadeError when another process still holds it after the wait."""
    path = _beside(place, _LOCK)
    deadline = time.monotonic() + wait_seconds
    fd = _open_lock(path)
    try:
        while not _try_lock(fd, path):
            if time.monotonic() >= deadline:
                raise NotMadeError(f"another process has been at work on it for {wait_seconds:g} s")
            waiting()
            time.sleep(_POLL_SECONDS)
            if not _names(path, fd):
                os.close(fd)
                fd = _open_lock(path)
        try:
            yield
        finally:
            # While it is held: whoever waits on this file notices that the name is gone, and opens the next one.
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try_lock(fd: int, path: Path) -> bool:
    """Whether the lock is ours. One whose file lost its name meanwhile excludes nobody."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if _names(path, fd):
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _names(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(fd))
    except FileNotFoundError:
        return False


# Entries ----------------------------------------------------------------------------------------------------------


def _beside(place: Path, suffix: str) -> Path:
    return place.with_name(place.name + suffix)


def _seal(folder: Path) -> int:
    """Write the manifest and have all of it on the disk before it gets its name; the bytes of its files.

    Without that, a power cut could leave an entry with the right sizes and holes for content.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        _sync(path)
        files[str(path.relative_to(folder))] = _state(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": files}))
    for path in (manifest, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        _sync(path)
    return sum(size for size, _ in files.values())


def _state(path: Path) -> list[int]:
    """What differs when somebody wrote to a file: reading gigabytes to compare them would cost what is to be saved."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file")
    return [status.st_size, status.st_mtime_ns]


def _is_whole(place: Path) -> bool:
    try:
        files = _manifest(place)
        return all(_state(place / name) == state for name, state in files.items())
    except (OSError, ValueError):
        return False


def _manifest(place: Path) -> dict[str, list[int]]:
    """The files of an entry with size and time. Raises ValueError when the manifest is not one."""
    content = json.loads((place / MANIFEST).read_text())
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(s, list) and len(s) == 2 for s in files.values()):
        raise ValueError(f"{place / MANIFEST} is not a manifest")
    return files


def _size_bytes(place: Path) -> int:
    return sum(size for size, _ in _manifest(place).values())


def _note_use(place: Path) -> None:
    # A folder that came with an image may be read-only; then nothing is removed from it either.
    with contextlib.suppress(OSError):
        os.utime(place / MANIFEST)


def _used_ns(place: Path) -> int:
    return (place / MANIFEST).stat().st_mtime_ns


def _remove(place: Path) -> None:
    """Holding the lock: take the name away at once, then the files."""
    making = _beside(place, _MAKING)
    shutil.rmtree(making, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        place.rename(making)
    shutil.rmtree(making, ignore_errors=True)


def _remove_unless_busy(place: Path, *, entry: bool = True) -> bool:
    """Remove an entry, or only what a dead maker left of it."""
    try:
        with _locked(place, 0):
            if entry:
                _remove(place)
            else:
                shutil.rmtree(_beside(place, _MAKING), ignore_errors=True)
    except (OSError, NotMadeError):
        return False
    return True


# Folders ----------------------------------------------------------------------------------------------------------


def _make_ours(folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    _check_ours(folder)


def _check_ours(folder: Path) -> None:
    """Refuse a folder that somebody else could have filled."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(f"{folder} is not a folder")
    if status.st_uid != os.geteuid():
        raise OSError(f"{folder} belongs to user {status.st_uid}, not to {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{folder} can be written by other users (mode {stat.S_IMODE(status.st_mode):o})")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
