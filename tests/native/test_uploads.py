"""Clients that upload slowly or not to the end hold no shared memory, and nothing is left of them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from predictd.client import NO_RETRIES, Client
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.bench.frames import DATA, END_STREAM, HEADERS, RST_STREAM, frame, prefixed
from tests.fixtures import models
from tests.fixtures.daemon import running
from tests.fixtures.processes import complaints
from tests.native.frames import RawClient, raw_client

PREDICT = "/predictd.v1.PredictionService/Predict"
ROWS = 400
CLIENTS = 10


def request(number: int) -> bytes:
    x = np.full((ROWS, 4), number, np.float32)
    tensor = v1.Tensor(name="x", dtype=v1.FP32, shape=x.shape, data=x.tobytes())
    return prefixed(v1.PredictRequest(model="affine", id=str(number), inputs=[tensor]).SerializeToString())


def answer(raw: RawClient) -> v1.PredictResponse:
    content = b""
    for one in raw.frames():
        if one.kind == DATA:
            content += one.payload
        if one.kind == HEADERS and one.flags & END_STREAM:
            break
    return v1.PredictResponse.FromString(content[5:])


def check(raw: RawClient, number: int) -> None:
    found = answer(raw)
    assert found.id == str(number)
    assert found.outputs[0].data == np.full((ROWS, 4), 2 * number, np.float32).tobytes()


def test_slow_uploads_are_answered_and_hold_no_shared_memory(tmp_path: Path) -> None:
    models.affine(tmp_path / "affine.onnx", scale=2.0, bias=0.0)
    arguments = ("--frontends", "1", "--arena-limit", "2MiB")
    environment = {"PREDICTD_FRONTEND": "native"}
    with (
        running(
            tmp_path / "affine.onnx", *arguments, folder=tmp_path / "run", environment=environment
        ) as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
        ExitStack() as stack,
    ):
        x = np.ones((ROWS, 4), np.float32)

        def serves() -> None:
            np.testing.assert_array_equal(client.predict("affine", {"x": x}, deadline=20).outputs["y"], 2 * x)

        # The shape is known from then on.
        for _ in range(3):
            serves()
        before = daemon.metric("predictd_arena_bytes", role="frontend")
        slow = [stack.enter_context(raw_client(daemon.grpc)) for _ in range(CLIENTS)]
        for number, raw in enumerate(slow):
            for stream in range(1, 41, 2):
                raw.call(stream, None, path=PREDICT)
                # Cut within the prefix, the name, the tensor, and just before its end.
                part = request(number)[: (3, 20, 3000, -1)[stream // 2 % 4]]
                raw.send(frame(DATA, 0, stream, part))
        serves()
        # Longer than a block is left to a message that is not whole.
        time.sleep(1.5)
        serves()
        assert daemon.metric("predictd_arena_bytes", role="frontend") <= before + 2 * 2**20
        for number, raw in enumerate(slow):
            for stream in range(1, 41, 2):
                cut = (3, 20, 3000, -1)[stream // 2 % 4]
                if number % 2:
                    raw.send(frame(RST_STREAM, 0, stream, (8).to_bytes(4)))
                elif stream == 7:
                    raw.send(frame(DATA, END_STREAM, stream, request(number)[cut:]))
        for number, raw in enumerate(slow):
            if number % 2 == 0:
                check(raw, number)
        serves()
        stack.close()
        daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 0, 20, "idle")
        serves()
        assert complaints(daemon) == []
