"""Two daemons behind a balancing gRPC client, replaced one after the other under load: no call fails."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from pathlib import Path

import numpy as np

from tests.fixtures import models
from tests.fixtures.daemon import REPOSITORY, Daemon
from tests.fixtures.load import Connections, Direct, Load, dense_jobs, drive

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
    # One says that it leaves before it does, the other one does not: then its connections end with work under way.
    ducks = ("500ms", "0s")
    daemons = [
        Daemon(model, "--lame-duck", duck, folder=folder / f"first{at}") for at, duck in enumerate(ducks)
    ]
    try:
        for daemon in daemons:
            daemon.wait_ready()
        target = f"ipv4:{','.join(daemon.grpc for daemon in daemons)}"
        options = (("grpc.service_config", recommended()), *RECONNECT)
        load, over = Load(), asyncio.Event()
        async with Connections(target, 4, options) as connections:
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
                for at, old in enumerate(daemons.copy()):
                    await busy(old)
                    daemons[at] = await replaced(old, model, folder / f"second{at}")
                    await busy(daemons[at])
            finally:
                over.set()
                await driver
        load.assert_all_right()
        for daemon in daemons:
            assert daemon.stop() == 0
    except BaseException:
        for daemon in daemons:
            print(daemon.output())
        raise
    finally:
        for daemon in daemons:
            daemon.kill()


async def busy(daemon: Daemon) -> None:
    """Wait until a daemon has answered some of the load."""
    await asyncio.to_thread(
        daemon.wait_until, lambda: daemon.metric("predictd_requests_total", status="OK") > CALLERS, 60, "busy"
    )


async def replaced(old: Daemon, model: Path, folder: Path) -> Daemon:
    """Drain a daemon and start another one at its address."""
    assert await asyncio.to_thread(old.stop) == 0
    new = Daemon(model, folder=folder, grpc=old.grpc)
    await asyncio.to_thread(new.wait_ready)
    assert new.grpc == old.grpc
    return new
