"""Pools are made for the memory that there is, at the start and later."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from predictd.server.config.settings import Settings
from predictd.server.launch.memory import Headroom
from predictd.server.repository.watch import Sight, look
from predictd.server.supervise.catalog import Catalog
from predictd.server.supervise.housing import Housing
from tests.fixtures.external import external
from tests.fixtures.supervision import FixedPlanner

MIB = 1 << 20


def model(root: Path, version: int) -> Sight:
    """A model whose weights, of 100 MiB, are beside it."""
    path = root / "m" / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    external(path, 2.0, "weights/w.bin", rows=100 * MIB // 16)
    (root / "m" / "model.toml").write_text("instances = 3\n")
    return look([root])


def housing(left_bytes: int) -> Housing:
    headroom = Headroom(left_bytes, 1024 * MIB, "/app/memory.max")
    return Housing(Settings(arena_limit_bytes=64 * MIB), FixedPlanner(), lambda: headroom)


def test_a_pool_is_made_with_as_many_workers_as_there_is_memory_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sight = model(tmp_path, 1)
    (found,) = sight.scan.models
    # Of 700 MiB, 64 are for arenas; a worker takes 64 and two and a half times the weights.
    pool = housing(700 * MIB).home(found, [found], {}, Catalog([])).pool
    assert pool is not None
    assert len(pool.places) == 2
    pool.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "pool m: 2 instead of the 3 workers asked for, as a worker takes about 314 MiB" in caplog.text


def test_the_plan_of_the_start_says_which_workers_are_missing(tmp_path: Path) -> None:
    sight = model(tmp_path, 1)
    start = housing(320 * MIB).start(Sight(sight.scan, {}))
    (pool,) = start.pools
    assert len(pool.places) == 1
    pool.close()
    (warning,) = start.plan.warnings
    assert "tried all the same; pool m: 1 instead of the 3 workers asked for" in warning
    assert "/app/memory.max leaves 256 MiB" in warning
