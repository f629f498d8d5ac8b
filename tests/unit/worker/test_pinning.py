"""Which segments an engine knows, in whatever order both come and go."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from predictd.engines.api import Array, EngineError
from predictd.server.worker.pinning import Pins


class Registering:
    """An engine that demands the contract: every segment once, and undone once."""

    def __init__(self, *, able: bool = True, fails: bool = False) -> None:
        self.known: list[int] = []
        self._able = able
        self._fails = fails

    def register_host(self, memory: Array) -> bool:
        if self._fails:
            raise EngineError("too little memory may be locked")
        assert memory.ctypes.data not in self.known
        if self._able:
            self.known.append(memory.ctypes.data)
        return self._able

    def unregister_host(self, memory: Array) -> None:
        self.known.remove(memory.ctypes.data)


def segment() -> np.ndarray:
    return np.zeros(64, np.uint8)


def test_segments_and_engines_come_and_go_in_any_order() -> None:
    pins, first, second = Pins(), Registering(), Registering()
    one, two = segment(), segment()
    pins.add_segment((0, 1), one)
    pins.add_engine(first)
    pins.add_segment((0, 2), two)
    pins.add_engine(second)
    assert first.known == second.known == [one.ctypes.data, two.ctypes.data]
    pins.drop_segment((0, 1))
    assert first.known == second.known == [two.ctypes.data]
    pins.drop_engine(first)
    assert first.known == []
    pins.drop_segment((0, 2))
    assert second.known == []
    pins.drop_engine(second)
    pins.drop_segment((0, 7))


def test_an_engine_that_does_not_care_is_not_asked() -> None:
    pins = Pins()
    pins.add_engine(object())
    pins.add_engine(None)
    pins.add_segment((0, 1), segment())
    pins.drop_engine(None)


def test_what_was_not_registered_is_not_undone(caplog: pytest.LogCaptureFixture) -> None:
    pins, unable, failing = Pins(), Registering(able=False), Registering(fails=True)
    pins.add_engine(unable)
    pins.add_engine(failing)
    with caplog.at_level(logging.WARNING):
        pins.add_segment((0, 1), segment())
    assert [record.message for record in caplog.records] == [
        "a segment of 64 bytes is not pinned: too little memory may be locked"
    ]
    pins.drop_segment((0, 1))
    pins.drop_engine(unable)
