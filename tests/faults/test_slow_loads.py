"""A load that hangs holds up neither what is served nor, for long, what is to be loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fixtures.daemon import Daemon, running
from tests.fixtures.killing import eventually
from tests.fixtures.swapping import calling, content

GATED = 'engine = "tests.fixtures.gated_engine:load"\n'


def hanging(root: Path, name: str, gate: Path, *, heeds: bool) -> Path:
    """A model that is not loaded before its gate is opened, if it is not given up."""
    folder = root / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "weights").touch()
    lines = ["[parameters]", f'load_gate = "{gate}"', *(['heeds_cancel = "true"'] if heeds else [])]
    (folder / "model.toml").write_text(GATED + "\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("pools", ["per-model", "shared"])
def test_a_load_that_hangs_disturbs_nobody(tmp_path: Path, pools: str) -> None:
    root, gate = tmp_path / "models", tmp_path / "gate"
    content(root / "a" / "1" / "model.onnx", 2.0)
    # Workers of one pool load one after the other, so that a lane behind the one that hangs waits for its end.
    limit = "3s" if pools == "shared" else "10m"

    async def scenario(daemon: Daemon) -> None:
        async with calling(daemon, "a", {1: {2.0}, 2: {3.0}}, callers=4) as tally:
            await tally.sees(1, 2.0)
            worker = daemon.pids("workers")
            hanging(root, "slow", gate, heeds=True)
            await eventually(
                lambda: "loading slow version 1" in daemon.output(), "loading the one that hangs"
            )
            content(root / "a" / "2" / "model.onnx", 3.0)
            content(root / "b" / "1" / "model.onnx", 4.0)
            await tally.sees(2, 3.0)
            await eventually(lambda: "loaded b version 1" in daemon.output(), "loaded what came later")
            if pools == "shared":
                assert daemon.pids("workers") == worker, "no worker was killed for it"
                why = "slow version 1 failed: it takes more than 3 s to load (load_timeout)"
                await eventually(lambda: why in daemon.output(), why)
            else:
                gate.touch()
                await eventually(lambda: "loaded slow version 1" in daemon.output(), "loaded in the end")
        assert daemon.metric("predictd_worker_restarts_total") == 0

    with running(root, "--pools", pools, "--load-timeout", limit, folder=tmp_path / "run") as daemon:
        asyncio.run(scenario(daemon))
