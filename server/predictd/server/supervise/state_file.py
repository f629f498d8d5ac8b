"""What was set at run time and shall outlive the daemon: one JSON file, replaced in one step.

The file has a format number and one section for each kind of setting. A file that cannot be understood is never
passed over: what somebody set would be gone without a word.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from predictd.server.repository.traffic import Traffic, TrafficError, check_shape, check_shares

FORMAT = 1
NAME = "state.json"
BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loads:
    """What was loaded and unloaded by command.

    Attributes:
        loaded: By model, the text that overrides its configuration; empty where there is none.
        unloaded: Models that shall not be loaded although the settings name them.
    """

    loaded: Mapping[str, str] = field(default_factory=dict)
    unloaded: frozenset[str] = frozenset()

    def with_loaded(self, configs: Mapping[str, str]) -> Loads:
        """After models were loaded."""
        return Loads({**self.loaded, **configs}, self.unloaded.difference(configs))

    def with_unloaded(self, names: Collection[str]) -> Loads:
        """After models were unloaded."""
        left = {name: config for name, config in self.loaded.items() if name not in names}
        return Loads(left, self.unloaded.union(names))


class StateError(Exception):
    """The state cannot be read or kept. The message is one line and names the file."""


class _ModelTraffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Labels and split of a model; JSON has text for keys, so a share is a pair."""

    labels: dict[str, int] = {}
    split: list[tuple[int, int]] = []


class _Head(msgspec.Struct, frozen=True):
    format: int


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The sections of the file. A new kind of setting is a section of its own."""

    format: int
    traffic: dict[str, _ModelTraffic] = {}
    loaded: dict[str, str] = {}
    unloaded: list[str] = []


class StateFile:
    """The state of one daemon, in a folder that is its own while it runs.

    Attributes:
        path: The file.
        traffic: Labels and splits that it holds, by model; nothing when there is none.
        loads: What it holds of loaded and unloaded models.

    Raises:
        StateError: The folder cannot be used or another daemon uses it, or the file cannot be understood.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / NAME
        self._one_writer = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StateError(f"the state folder {folder} cannot be used: {_reason(error)}") from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise StateError(f"the state folder {folder} is used by another daemon") from error
        try:
            self.traffic, self.loads = self._read()
        except StateError:
            self.close()
            raise

    def close(self) -> None:
        """Leave the folder to others."""
        os.close(self._lock_fd)

    def _read(self) -> tuple[Mapping[str, Traffic], Loads]:
        try:
            with self.path.open("rb") as file:
                data = file.read(BYTES_MAX + 1)
        except FileNotFoundError:
            return {}, Loads()
        except OSError as error:
            raise StateError(f"{self.path} cannot be read: {_reason(error)}") from error
        if len(data) > BYTES_MAX:
            raise StateError(f"{self.path} is larger than {BYTES_MAX} bytes: {_REMEDY}")
        try:
            return _read(data)
        except (msgspec.DecodeError, TrafficError, UnicodeDecodeError, ValueError) as error:
            raise StateError(f"{self.path} cannot be understood: {error}: {_REMEDY}") from error

    def write(self, traffic: Mapping[str, Traffic]) -> None:
        """Keep all labels and splits. On return they are on disk; a crash leaves the old or the new file, whole.

        Raises:
            StateError: It is not certain that they are kept; the file is the old or the new one, whole.
        """
        with self._one_writer:
            self._write(traffic, self.loads)
            self.traffic = traffic

    def write_loads(self, loads: Loads) -> None:
        """Keep what was loaded and unloaded, as `write` does."""
        with self._one_writer:
            self._write(self.traffic, loads)
            self.loads = loads

    def _write(self, traffic: Mapping[str, Traffic], loads: Loads) -> None:
        data = _encode(traffic, loads)
        if len(data) > BYTES_MAX:
            raise StateError(
                f"{self.path} would be larger than {BYTES_MAX} bytes: remove labels, or load with less config"
            )
        temporary = self.path.with_name(f"{NAME}.new")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            with _opened(self._folder) as folder_fd:
                os.fsync(folder_fd)
        except OSError as error:
            raise StateError(f"{self.path} cannot be written: {_reason(error)}") from error


_REMEDY = "repair it, or move it away to start without what was set at run time"


def _read(data: bytes) -> tuple[Mapping[str, Traffic], Loads]:
    number = msgspec.json.decode(data, type=_Head).format
    if number != FORMAT:
        raise ValueError(f"it has format {number}, and this version reads {FORMAT}")
    state = msgspec.json.decode(data, type=_State)
    for name, kept in state.traffic.items():
        for label, version in kept.labels.items():
            check_shape(label)
            _check_version(name, version)
        check_shares(kept.split)
        for version, _ in kept.split:
            _check_version(name, version)
    traffic = {name: Traffic(kept.labels, dict(kept.split)) for name, kept in state.traffic.items()}
    return traffic, Loads(state.loaded, frozenset(state.unloaded))


def _check_version(name: str, version: int) -> None:
    if version < 1:
        raise ValueError(f"model {name!r} cannot have a version {version}")


def _encode(traffic: Mapping[str, Traffic], loads: Loads) -> bytes:
    kept = {
        name: _ModelTraffic(labels=dict(one.labels), split=list(one.split.items()))
        for name, one in sorted(traffic.items())
    }
    state = _State(FORMAT, kept, dict(sorted(loads.loaded.items())), sorted(loads.unloaded))
    return msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n"


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder_fd
    finally:
        os.close(folder_fd)


def _reason(error: OSError) -> str:
    return str(error.strerror or error).lower()
