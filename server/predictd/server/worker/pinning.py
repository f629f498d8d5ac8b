"""Which mapped memory engines know, so that their devices copy from where front ends wrote (`RegistersHost`)."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import EngineError, RegistersHost

Key = tuple[int, int]
"""A front end and its segment."""

_log = logging.getLogger(__name__)


class Pins:
    """Segments on one side, engines on the other; either may come and go at any time, in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._segments: dict[Key, npt.NDArray[Any]] = {}
        # Each engine with the segments that it knows.
        self._engines: list[tuple[RegistersHost, set[Key]]] = []

    def add_segment(self, key: Key, memory: npt.NDArray[np.uint8]) -> None:
        """A segment was mapped."""
        with self._lock:
            self._segments[key] = memory
            for engine, known in self._engines:
                _register(engine, known, key, memory)

    def drop_segment(self, key: Key) -> None:
        """A segment is about to be unmapped. None of it is in use by a run."""
        with self._lock:
            memory = self._segments.pop(key, None)
            if memory is None:
                return
            for engine, known in self._engines:
                _unregister(engine, known, key, memory)

    def drop_frontend(self, frontend: int) -> None:
        """All segments of a front end are about to be unmapped."""
        with self._lock:
            keys = [key for key in self._segments if key[0] == frontend]
        for key in keys:
            self.drop_segment(key)

    def add_engine(self, engine: object) -> None:
        """A lane is served by this engine; nothing for one that does not care."""
        if not isinstance(engine, RegistersHost):
            return
        with self._lock:
            known: set[Key] = set()
            self._engines.append((engine, known))
            for key, memory in self._segments.items():
                _register(engine, known, key, memory)

    def drop_engine(self, engine: object) -> None:
        """An engine is about to be closed."""
        with self._lock:
            for entry in [entry for entry in self._engines if entry[0] is engine]:
                self._engines.remove(entry)
                for key in list(entry[1]):
                    _unregister(*entry, key, self._segments[key])


def _register(engine: RegistersHost, known: set[Key], key: Key, memory: npt.NDArray[Any]) -> None:
    try:
        if engine.register_host(memory):
            known.add(key)
    except EngineError as error:
        # Such as too little memory that may be locked: its inputs are copied once more.
        _log.warning("a segment of %d bytes is not pinned: %s", memory.nbytes, error)


def _unregister(engine: RegistersHost, known: set[Key], key: Key, memory: npt.NDArray[Any]) -> None:
    if key not in known:
        return
    known.remove(key)
    try:
        engine.unregister_host(memory)
    except EngineError as error:
        # A device that is lost has forgotten it already.
        _log.warning("a segment of %d bytes is not unpinned: %s", memory.nbytes, error)
