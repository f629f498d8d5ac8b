"""Two daemons behind a balancing gRPC client, replaced one after the other under load: no call fails."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from pathlib import Path

import numpy as np

from tests.fixtures import models
from tests.fixtures.daemon import REPOSITORY
from tests.fixtures.load import Connections, Direct, Load, dense_jobs, drive
from tests.fixtures.rolling import two_daemons, wait_busy

WIDTH = 4
CALLERS = 16
# A connection that was lost is tried again soon, so that the new daemon has its share while the test looks.
RECONNECT = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000))


def recommended() -> str:
    """The service configuration that the operations page recommends to clients."""
    page = (REPOSITORY / "docs" / "operations.md").read_text()
    (found,) = re.findall(r"```json\n(\{.*?loadBalancingConfig.*?)```", page, re.DOTALL)
    json.loads(found)
    return str(found)


def test_a_rolling_replacement_loses_no_call(tmp_path: Path) -> None:
    asyncio.run(replace_both(tmp_path))


async def replace_both(folder: Path) -> None:
    model = models.affine(folder / "affine.onnx", width=WIDTH)
    random = np.random.default_rng(7)
    jobs = dense_jobs("affine", Direct(model), random, 64, WIDTH, rows=(1, 2, 3))
    with two_daemons(model, folder) as pair:
        options = (("grpc.service_config", recommended()), *RECONNECT)
        load, over = Load(), asyncio.Event()
        async with Connections(pair.target, 4, options) as connections:
            driver = asyncio.create_task(
                drive(
                    connections,
                    itertools.cycle(jobs),
                    load=load,
                    callers=CALLERS,
                    until=over.is_set,
                    patient=True,
                )
            )
            try:
                for at, old in enumerate(pair.daemons.copy()):
                    await asyncio.to_thread(wait_busy, old, CALLERS)
                    new = await asyncio.to_thread(pair.replace, at)
                    await asyncio.to_thread(wait_busy, new, CALLERS)
            finally:
                over.set()
                await driver
        load.assert_all_right()
