"""Many callers at once: every answer is the caller's own, and they share runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.load import Connections, Direct, Job, Load, dense_jobs, drive

ROWS = (1, 2, 1, 3, 1, 5)
WIDTH = 384


def mixed_jobs(folder: Path, number: int) -> list[Job]:
    """Half for a dense model, half for one whose rows have two lengths, in an order that was drawn once."""
    random = np.random.default_rng(3)
    # Large enough for a run to take longer than the next requests to come, so that batches grow by themselves.
    mlp = Direct(models.mlp(folder / "mlp.onnx", width=WIDTH, layers=6))
    sums = Direct(models.dynamic_dims(folder / "sums.onnx"))
    quarter = number // 4
    jobs = dense_jobs("mlp", mlp, random, number - 2 * quarter, WIDTH, ROWS)
    for length in (7, 20):
        jobs += dense_jobs("sums", sums, random, quarter, length, ROWS)
    random.shuffle(jobs)
    return jobs


async def load(target: str, jobs: Sequence[Job], callers: int = 64) -> Load:
    result = Load()
    async with Connections(target) as connections:
        await drive(connections, jobs, load=result, callers=callers)
    return result


def mean_batch_rows(daemon: Daemon) -> float:
    return daemon.metric("predictd_batch_rows_sum") / daemon.metric("predictd_batch_rows_count")


def answer_everything(daemon: Daemon, jobs: Sequence[Job], callers: int = 64) -> None:
    result = asyncio.run(load(daemon.grpc, jobs, callers))
    result.assert_all_right()
    assert result.answered == len(jobs)
    daemon.wait_metric("predictd_requests_total", len(jobs), status="OK")
    daemon.wait_metric("predictd_run_requests_total", len(jobs))
    daemon.wait_metric("predictd_queue_depth", 0)


def test_64_callers_get_20000_answers_of_their_own(tmp_path: Path) -> None:
    jobs = mixed_jobs(tmp_path, 20_000)
    with running(tmp_path, folder=tmp_path / "run") as daemon:
        answer_everything(daemon, jobs)
        print(f"mean batch: {mean_batch_rows(daemon):.1f} rows")
        assert mean_batch_rows(daemon) > 2


def test_two_front_ends_and_two_workers_share_the_requests(tmp_path: Path) -> None:
    jobs = mixed_jobs(tmp_path, 3_000)
    with running(tmp_path, "--frontends", "2", "--instances", "2", folder=tmp_path / "run") as daemon:
        answer_everything(daemon, jobs)
        assert len(daemon.pids("front ends")) == 2
        assert len(daemon.pids("workers")) == 4


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_million_answers(tmp_path: Path) -> None:
    jobs = mixed_jobs(tmp_path, 20_000)
    with running(tmp_path, "--frontends", "2", "--instances", "2", folder=tmp_path / "run") as daemon:
        for _ in range(50):
            asyncio.run(load(daemon.grpc, jobs)).assert_all_right()
        daemon.wait_metric("predictd_requests_total", 50 * len(jobs), status="OK")
