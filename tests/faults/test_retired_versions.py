"""A version is retired and its files are gone when its worker dies: its requests are answered by its successor."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from predictd.client import NO_RETRIES, AsyncClient, UnavailableError
from tests.fixtures.daemon import running
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.killing import eventually, workers


def put(root: Path, number: int) -> None:
    """A version of the model `m`."""
    (root / "m" / str(number)).mkdir(parents=True)
    (root / "m" / str(number) / "weights").touch()


def test_requests_that_name_no_version_are_answered_by_the_one_that_is_there(tmp_path: Path) -> None:
    root, gate, log = tmp_path / "models", tmp_path / "gate", tmp_path / "log"
    put(root, 1)
    lines = ['engine = "tests.fixtures.gated_engine:load"', "max_batch_size = 1", "[parameters]"]
    lines += [f'run_gate = "{gate}"', f'run_log = "{log}"', 'needs_file = "true"']
    (root / "m" / "model.toml").write_text("\n".join(lines) + "\n")

    def held_runs() -> int:
        return log.read_text().splitlines().count("1")

    async def scenario() -> None:
        with running(root, folder=tmp_path / "run") as daemon:
            async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
                x = {"x": np.array([[HOLD]], np.float32)}
                anyones = asyncio.ensure_future(client.predict("m", x))
                await eventually(lambda: held_runs() == 1, "running")
                waits = asyncio.ensure_future(client.predict("m", x))
                its_own = asyncio.ensure_future(client.predict("m", x, version=1))
                await eventually(lambda: daemon.metric("predictd_in_flight") == 3, "in flight")
                (old,) = workers(daemon, "m")
                put(root, 2)
                await eventually(lambda: "retiring m version 1" in daemon.output(), "retiring")
                shutil.rmtree(root / "m" / "1")
                os.kill(old, signal.SIGKILL)
                with pytest.raises(UnavailableError, match="model 'm'"):
                    await its_own
                gate.touch()
                answers = [await anyones, await waits]
                assert [answer.version for answer in answers] == [2, 2]
                assert [answer.outputs["y"].tolist() for answer in answers] == [[[HOLD]]] * 2

    asyncio.run(scenario())
