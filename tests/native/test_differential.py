"""Mutated messages to both front ends: see `tests/native/differential.py`."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.native.differential import INFER_STREAM, PREDICT, compare, compressed, describe, pair, told


@pytest.mark.parametrize(
    "messages", [1000, pytest.param(200_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_both_front_ends_say_the_same(tmp_path: Path, messages: int) -> None:
    with pair(tmp_path) as (reference, native):
        differences, codes = asyncio.run(compare(reference.grpc, native.grpc, messages, seed=messages))
        assert not differences, "\n".join(map(describe, differences[:20]))
        assert codes["OK"] > messages / 4
        assert codes["INVALID_ARGUMENT"] > messages / 10
        if shutil.which("curl") is not None:
            for name, call in compressed().items():
                for method in (PREDICT, INFER_STREAM):
                    said = told(reference.grpc, method, *call)
                    assert said, name
                    assert told(native.grpc, method, *call) == said, name
        for daemon in (reference, native):
            daemon.wait_metric("predictd_in_flight", 0)
