"""Connections that come and go, calls that are left at any stage: memory, descriptors and blocks come back."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from predictd.client import NO_RETRIES, Client
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.bench.frames import DATA, END_STREAM, RST_STREAM, frame, prefixed
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.processes import complaints
from tests.native.frames import RawClient, raw_client

MIB = 2**20
THREADS = 4
ROUNDS_MAX = 5
CALLS = 20
ROWS = 16

_X = np.full((ROWS, 4), 3, np.float32)
_PREDICT = v1.PredictRequest(
    model="affine", id="1", inputs=[v1.Tensor(name="x", dtype=v1.FP32, shape=_X.shape, data=_X.tobytes())]
).SerializeToString()
_INFER = oip.ModelInferRequest(
    model_name="affine",
    id="1",
    inputs=[oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=_X.shape)],
    raw_input_contents=[_X.tobytes()],
).SerializeToString()
METHODS = [
    ("/predictd.v1.PredictionService/Predict", prefixed(_PREDICT)),
    ("/predictd.v1.PredictionService/PredictStream", prefixed(_PREDICT) * 3),
    ("/inference.GRPCInferenceService/ModelInfer", prefixed(_INFER)),
    ("/inference.GRPCInferenceService/ModelStreamInfer", prefixed(_INFER) * 3),
    ("/inference.GRPCInferenceService/ServerLive", prefixed(b"")),
    ("/inference.GRPCInferenceService/Missing", prefixed(b"x" * 1000)),
]
EXPECTED = (2 * _X).tobytes()


def one_connection(address: str, draw: random.Random) -> int:
    """Calls that end well, are cancelled, or are cut with their connection. Gives how many answers came."""
    with suppress(ConnectionResetError, BrokenPipeError), raw_client(address) as raw:
        ending = 0
        for stream in range(1, 2 * CALLS, 2):
            path, content = draw.choice(METHODS)
            raw.call(stream, None, path=path)
            cut = draw.choice((len(content), len(content), draw.randrange(len(content) + 1)))
            for part in (content[: cut // 2], content[cut // 2 : cut]):
                raw.send(frame(DATA, 0, stream, part))
            match draw.randrange(4):
                case 0:
                    raw.send(frame(RST_STREAM, 0, stream, (8).to_bytes(4)))
                case 1:
                    pass
                case _:
                    raw.send(frame(DATA, END_STREAM, stream))
                    ending += 1
        return _read(raw, ending if draw.random() < 0.7 else draw.randrange(ending + 1))
    return 0


def _read(raw: RawClient, endings: int) -> int:
    answers = 0
    for one in raw.frames():
        answers += one.payload.count(EXPECTED)
        if one.kind != DATA and one.flags & END_STREAM and one.stream:
            endings -= 1
        if endings <= 0:
            break
    return answers


def churn(address: str, connections: int, seed: int) -> int:
    draws = [random.Random(f"{seed} {number}") for number in range(connections)]
    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(lambda draw: one_connection(address, draw), draws))


def descriptors(pid: int) -> int:
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


@pytest.mark.parametrize(
    "connections",
    [pytest.param(300, id="short"), pytest.param(50_000, id="long", marks=[pytest.mark.soak])],
)
def test_what_comes_and_goes_leaves_nothing(tmp_path: Path, connections: int) -> None:
    models.affine(tmp_path / "affine.onnx", scale=2.0, bias=0.0)
    environment = {"PREDICTD_FRONTEND": "native"}
    with (
        running(
            tmp_path / "affine.onnx", "--frontends", "1", folder=tmp_path / "run", environment=environment
        ) as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        (pid,) = daemon.pids("front ends")
        client.predict("affine", {"x": _X}, deadline=20)
        seen: list[tuple[int, float]] = []
        resident = 0
        # The arena grows with the most requests at once, of which there are more while others have the worker's CPU.
        while len(seen) < 2 or seen[-1] != seen[-2]:
            assert len(seen) < ROUNDS_MAX, seen
            resident = psutil.Process(pid).memory_info().rss
            assert churn(daemon.grpc, connections, len(seen)) > connections
            rest(daemon)
            seen.append((descriptors(pid), daemon.metric("predictd_arena_bytes", role="frontend")))
        assert psutil.Process(pid).memory_info().rss - resident < 8 * MIB
        np.testing.assert_array_equal(client.predict("affine", {"x": _X}, deadline=20).outputs["y"], 2 * _X)
        assert complaints(daemon) == []


def rest(daemon: Daemon) -> None:
    """Wait until nothing is left of those who went."""
    (pid,) = daemon.pids("front ends")
    daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 0, 20, "idle")
    connected = [*psutil.Process(pid).net_connections("tcp")]
    daemon.wait_until(
        lambda: sum(one.status == "ESTABLISHED" for one in psutil.Process(pid).net_connections("tcp")) <= 1,
        20,
        f"rid of connections: {connected}",
    )
