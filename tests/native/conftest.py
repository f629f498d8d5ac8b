"""The C half, where it is installed; what is in this folder is skipped where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictd.server.supervise.carrier import native_problem

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (problem := native_problem()):
        return
    for item in items:
        # They are those of the whole run.
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.skip(reason=f"{problem}: pip install ./server/native"))
