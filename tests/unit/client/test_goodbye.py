"""A server that says goodbye to a connection while a call of any size begins on it: no call is lost."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from predictd.client import AsyncClient, Client, Prediction
from predictd.server.bench.frames import ACK, GOAWAY, SETTINGS, frame
from tests.fixtures.prediction_service import FakeService, serving

# More than gRPC keeps of a call by itself, 256 KiB.
X = np.arange(250_000, dtype=np.float32).reshape(1, -1)
_BEGUN_BYTES = 32 * 1024


def _goodbye(connection: socket.socket) -> None:
    """Let a call begin, and say that it came too late."""
    connection.sendall(frame(SETTINGS, 0, 0, b""))
    received = len(connection.recv(65536))
    connection.sendall(frame(SETTINGS, ACK, 0, b""))
    while received < _BEGUN_BYTES:
        data = connection.recv(65536)
        assert data
        received += len(data)
    # No stream was looked at, and nothing is wrong.
    connection.sendall(frame(GOAWAY, 0, 0, bytes(8)))


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def goodbye_once(target: str) -> Iterator[str]:
    """The address of one that refuses the first connection's call and passes all others on to `target`."""
    host, _, port = target.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        refused, _ = listener.accept()
        with refused, suppress(OSError):
            _goodbye(refused)
            connection, _ = listener.accept()
            with connection, socket.create_connection((host, int(port))) as onwards:
                back = threading.Thread(target=_pass_on, args=(onwards, connection))
                back.start()
                _pass_on(connection, onwards)
                back.join()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def once(target: str) -> Prediction:
    with Client(target) as client:
        return client.predict("echo", {"x": X}, deadline=30)


def once_async(target: str) -> Prediction:
    async def predict() -> Prediction:
        async with AsyncClient(target) as client:
            return await client.predict("echo", {"x": X}, deadline=30)

    return asyncio.run(predict())


@pytest.mark.parametrize("predict", [once, once_async])
def test_a_call_that_came_too_late_for_a_connection_goes_to_the_next(
    predict: Callable[[str], Prediction],
) -> None:
    with serving(FakeService()) as target, goodbye_once(target) as address:
        prediction = predict(address)
    np.testing.assert_array_equal(prediction.outputs["x"], X)
