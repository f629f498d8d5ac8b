"""The C half, where it is installed; all is skipped where it is not."""

from __future__ import annotations

import pytest

from predictd.server.supervise.carrier import native_problem


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if problem := native_problem():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"{problem}: pip install ./server/native"))
