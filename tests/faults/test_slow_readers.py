"""Clients that ask for large answers and do not read them: bounded memory, and everybody else is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import numpy as np

from predictd.client import NO_RETRIES, Client
from predictd.engines.api import DType
from predictd.protos.v1 import predictd_pb2 as pb
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.processes import complaints

MIB = 1024 * 1024
WIDTH = MIB // 4
READERS = 50
REQUESTS = 14
LIMIT = 2 * MIB
# Of a connection, beside its limit: the answer that gRPC writes, and the next one that is expected and larger.
BESIDE_BYTES = 3 * MIB
STREAM = "/predictd.v1.PredictionService/PredictStream"


def spread(path: Path) -> Path:
    """`y` = `x` in each of its columns: from 4 bytes to 1 MiB."""
    return models.save(
        path,
        [models.node("Add", "x row", "y")],
        [models.tensor("x", DType.FP32, ("batch", 1))],
        [models.tensor("y", DType.FP32, ("batch", WIDTH))],
        {"row": np.zeros(WIDTH, np.float32)},
    )


def request(value: int) -> bytes:
    tensor = pb.Tensor(name="x", dtype=pb.FP32, shape=[1, 1], data=np.float32(value).tobytes())
    return pb.PredictRequest(model="spread", id=str(value), inputs=[tensor]).SerializeToString()


def check(response: pb.PredictResponse, value: int) -> None:
    data = response.outputs[0].data
    assert len(data) == 4 * WIDTH
    assert data == np.full(WIDTH, value, np.float32).tobytes()


class Reader:
    """A connection of its own with many requests and nobody who reads their answers, until `read`."""

    def __init__(self, daemon: Daemon, *, streams: bool) -> None:
        # A small window, so that what is unread is in the daemon and not in the test.
        self._channel = grpc.aio.insecure_channel(
            daemon.grpc,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", 4096),
            ],
        )
        self._calls: list[grpc.aio.StreamStreamCall[bytes, bytes]] = []
        self._streams = streams

    async def ask(self) -> None:
        """Send all requests, each in a stream of its own or all in one."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(STREAM)
        for value in range(1, REQUESTS + 1):
            if not self._calls or not self._streams:
                self._calls.append(method())
            await self._calls[-1].write(request(value))

    async def read(self) -> None:
        """Read all answers. Of all calls at once: which of them the daemon took in hand first is its choice."""
        answered = await asyncio.gather(*map(self._read, self._calls))
        assert sorted(value for values in answered for value in values) == list(range(1, REQUESTS + 1))
        await self._channel.close()

    async def _read(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> list[int]:
        await call.done_writing()
        values = []
        async for data in call:
            answer = pb.PredictStreamResponse.FromString(data)
            assert not answer.HasField("error"), answer.error
            values.append(int(answer.response.id))
            check(answer.response, values[-1])
        return values


def test_slow_readers_of_large_answers_cost_bounded_memory_and_nobody_else_anything(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    spread(repository / "spread.onnx")
    models.affine(repository / "affine.onnx", scale=2.0, bias=0.0)
    arguments = ("--frontends", "1", "--max-batch-size", "4", "--unread-limit", "2MiB")

    def resident(daemon: Daemon) -> float:
        return daemon.metric("predictd_process_resident_bytes", role="frontend")

    async def scenario(daemon: Daemon) -> None:
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            check_client(client)
            before = resident(daemon)
            readers = [Reader(daemon, streams=number % 2 == 0) for number in range(READERS)]
            await asyncio.gather(*(reader.ask() for reader in readers))
            for _ in range(50):
                await asyncio.to_thread(check_client, client)
            daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 0, 30, "idle")
            grown = resident(daemon) - before
            print(f"{grown / MIB:.0f} MiB for {READERS} readers of {REQUESTS} answers of 1 MiB")
            assert grown < READERS * (LIMIT + BESIDE_BYTES) < READERS * REQUESTS * MIB / 2
            # No answer of them is in a worker's memory any more: what there is are a few blocks for whole batches.
            assert daemon.metric("predictd_arena_bytes", role="worker") < READERS * REQUESTS * MIB / 4
            for reader in readers:
                await reader.read()
            await asyncio.to_thread(check_client, client)

    def check_client(client: Client) -> None:
        x = np.ones((1, 4), np.float32)
        np.testing.assert_array_equal(client.predict("affine", {"x": x}, deadline=10).outputs["y"], x * 2)
        answer = client.predict("spread", {"x": x[:, :1]}, deadline=10).outputs["y"]
        np.testing.assert_array_equal(answer, np.ones((1, WIDTH), np.float32))

    with running(repository, *arguments, folder=tmp_path / "run") as daemon:
        asyncio.run(scenario(daemon))
        assert complaints(daemon) == []
