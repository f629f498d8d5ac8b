"""What tests of the supervisor's parts share."""

from __future__ import annotations

import pytest

from predictd.server.supervise import starter
from tests.fixtures.supervision import Nursery


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Nursery:
    """Where the children are that somebody started; none is a process."""
    one = Nursery()
    monkeypatch.setattr(starter, "Child", one)
    return one
