"""Connections that must end when they are a second old, under load: no client loses a call, whatever its library."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, aclosing
from pathlib import Path

import grpc
import grpc.aio
import numpy as np

from predictd.client import NO_RETRIES, AsyncClient, Client, Request
from predictd.client.channel import OPTIONS, PREDICT_STREAM
from predictd.client.messages import build
from predictd.server.bench.frames import GOAWAY, PING, frame
from tests.fixtures import models
from tests.fixtures.bad_clients import HELLO
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.load import Connections, Direct, Load, dense_jobs, drive

WIDTH = 16
SECONDS = 3.0
FRAME_HEAD_BYTES = 9
NO_ERROR, ENHANCE_YOUR_CALM = 0, 11
TRITON = """
import sys, time
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
x = np.arange({width}, dtype=np.float32).reshape(1, {width})
tensor = InferInput("x", x.shape, "FP32")
tensor.set_data_from_numpy(x)
end = time.monotonic() + {seconds}
answered = 0
with InferenceServerClient(sys.argv[1]) as client:
    first = client.infer("target", [tensor]).as_numpy("y")
    while time.monotonic() < end:
        np.testing.assert_array_equal(client.infer("target", [tensor]).as_numpy("y"), first)
        answered += 1
print(answered)
"""


def one_after_the_other(target: str, x: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> int:
    """Our synchronous client. Returns how many were answered; raises what is not."""
    end, answered = time.monotonic() + SECONDS, 0
    with Client(target, retries=NO_RETRIES) as client:
        while time.monotonic() < end:
            client.predict("target", {"x": x})
            answered += 1
    return answered


async def streamed(target: str) -> int:
    """Many short streams of our asynchronous client."""
    x = np.ones((1, WIDTH), np.float32)
    end, answered = time.monotonic() + SECONDS, 0

    async def requests() -> AsyncIterator[Request]:
        for _ in range(20):
            yield Request(model="target", inputs={"x": x})

    async with AsyncClient(target, retries=NO_RETRIES) as client:
        while time.monotonic() < end:
            async with aclosing(client.predict_stream(requests())) as answers:
                async for _, answer in answers:
                    assert not isinstance(answer, Exception), answer
                    answered += 1
    return answered


async def everything(daemon: Daemon, folder: Path) -> Load:
    direct = Direct(folder / "target.onnx")
    jobs = dense_jobs("target", direct, np.random.default_rng(3), 100, WIDTH, (1, 2))
    load, end = Load(), time.monotonic() + SECONDS
    script = TRITON.format(width=WIDTH, seconds=SECONDS)
    triton = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, daemon.grpc), stdout=asyncio.subprocess.PIPE
    )
    async with Connections(daemon.grpc) as connections:
        _, alone, stream = await asyncio.gather(
            drive(
                *(connections, itertools.cycle(jobs)),
                load=load,
                callers=16,
                until=lambda: time.monotonic() > end,
            ),
            asyncio.to_thread(one_after_the_other, daemon.grpc, np.ones((1, WIDTH), np.float32)),
            streamed(daemon.grpc),
        )
    output, _ = await triton.communicate()
    assert triton.returncode == 0
    assert alone > 0
    assert stream > 0
    assert int(output) > 0
    return load


def goodbye(address: str, pings_every_seconds: float = 60) -> int:
    """The reason that stands in the GOAWAY for a client that listens and asks whether we are there."""
    host, _, port = address.rpartition(":")
    data = b""
    with socket.create_connection((host, int(port)), timeout=pings_every_seconds) as connection:
        connection.sendall(HELLO)
        while True:
            try:
                data += connection.recv(4096)
            except TimeoutError:
                connection.sendall(frame(PING, 0, 0, bytes(8)))
            while len(data) >= FRAME_HEAD_BYTES + int.from_bytes(data[:3], "big"):
                end = FRAME_HEAD_BYTES + int.from_bytes(data[:3], "big")
                if data[3] == GOAWAY:
                    return int.from_bytes(data[FRAME_HEAD_BYTES + 4 : FRAME_HEAD_BYTES + 8], "big")
                data = data[end:]


async def talk(target: str, seconds: float) -> grpc.StatusCode | None:
    """A request every now and then on one stream. Returns the status that ended it early."""
    request = build(Request(model="target", inputs={"x": np.ones((1, WIDTH), np.float32)}))
    end = time.monotonic() + seconds
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        stream: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(PREDICT_STREAM)()
        try:
            while time.monotonic() < end:
                await stream.write(request.SerializeToString())
                if not isinstance(await stream.read(), bytes):
                    return await stream.code()
                await asyncio.sleep(0.05)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return await stream.code()
    return None


def serving(folder: Path, *arguments: str) -> AbstractContextManager[Daemon]:
    model = models.mlp(folder / "target.onnx", width=WIDTH)
    return running(model, "--max-connection-age", "1s", *arguments, folder=folder / "run")


def test_connections_that_end_all_the_time_cost_no_call(tmp_path: Path) -> None:
    with serving(tmp_path, "--frontends", "2") as daemon:

        async def load_and_talk() -> tuple[Load, grpc.StatusCode | None]:
            return await asyncio.gather(everything(daemon, tmp_path), talk(daemon.grpc, SECONDS))

        load, ended = asyncio.run(load_and_talk())
        load.assert_all_right()
        # Without a grace a stream goes on for as long as it takes.
        assert ended is None
        assert goodbye(daemon.grpc) == NO_ERROR
        daemon.wait_until(
            lambda: (
                daemon.metric("predictd_requests_total")
                == daemon.metric("predictd_requests_total", status="OK")
                > 0
            ),
            30,
            "done with all, and well",
        )


def test_a_stream_that_outlives_the_grace_and_a_client_that_asks_too_often_are_cut_off(
    tmp_path: Path,
) -> None:
    arguments = ("--max-connection-age-grace", "1s", "--min-ping-interval", "100ms")
    with serving(tmp_path, *arguments) as daemon:
        assert asyncio.run(talk(daemon.grpc, 30)) is grpc.StatusCode.UNAVAILABLE
        assert asyncio.run(talk(daemon.grpc, 0.1)) is None
        assert goodbye(daemon.grpc, pings_every_seconds=0.01) == ENHANCE_YOUR_CALM
        assert goodbye(daemon.grpc, pings_every_seconds=0.25) == NO_ERROR
