"""Requests through a worker into a TensorRT engine on a fake GPU: from where front ends wrote, to their answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from predictd.engines.api import EngineOptions
from predictd.engines.tensorrt import load
from predictd.server.worker.runner import LoadedLane
from tests.fakes.plans import PlanSpec, Tensor
from tests.fakes.stack import FAKES, make_stack
from tests.unit.worker.harness import running
from tests.unit.worker.lanes import doubling_lane
from tests.unit.worker.tensors import rows_of

PLAN = PlanSpec("double", (Tensor("x", (-1, 3)),), (Tensor("y", (-1, 3)),), ((((1, 3), (4, 3), (4, 3)),),))


@pytest.mark.parametrize("version", FAKES)
def test_requests_are_copied_from_their_blocks_and_answered(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_stack(version, tmp_path, monkeypatch)
    assert stack.world is not None
    engine = load(stack.path(PLAN), EngineOptions(device="0", parameters={"parts": "1"}))
    lane = LoadedLane(doubling_lane().config, engine, engine.signature, loaded=engine)
    with running(lane) as worker:
        worker.memory.pins.add_engine(lane.loaded)
        frontend = worker.frontend()
        for sizes in ((1,), (1,), (1,), (2, 3, 1), (7,)):
            sent = [frontend.ask(lane, rows_of(at, rows)) for at, rows in enumerate(sizes)]
            worker.serve()
            found = {answer.slot: answer.outputs[0] for answer in frontend.answers()}
            for at, (one, rows) in enumerate(zip(sent, sizes, strict=True)):
                np.testing.assert_array_equal(found[one.slot], 2 * rows_of(at, rows))
        assert stack.world.registered, "the request arena is pinned"
        worker.memory.detach(frontend.id)
        assert not stack.world.registered
        worker.memory.pins.drop_engine(lane.loaded)
    engine.close()
    stack.world.nothing_left()
