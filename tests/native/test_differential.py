"""Mutated messages to both front ends: see `tests/native/differential.py`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.native.differential import compare, describe, pair


@pytest.mark.parametrize(
    "messages", [1000, pytest.param(200_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_both_front_ends_say_the_same(tmp_path: Path, messages: int) -> None:
    with pair(tmp_path) as (reference, native):
        differences, codes = asyncio.run(compare(reference.grpc, native.grpc, messages, seed=messages))
        assert not differences, "\n".join(map(describe, differences[:20]))
        assert codes["OK"] > messages / 4
        assert codes["INVALID_ARGUMENT"] > messages / 10
        for daemon in (reference, native):
            daemon.wait_metric("predictd_in_flight", 0)
