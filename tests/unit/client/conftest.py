from __future__ import annotations

from typing import Any

import pytest

from predictd.client import Client
from tests.fixtures.either_client import from_async


@pytest.fixture(params=["sync", "aio"])
def make_client(request: pytest.FixtureRequest) -> Any:
    return Client if request.param == "sync" else from_async
