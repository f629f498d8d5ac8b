"""A call whose path is no text is nobody else's concern."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from predictd.client import NO_RETRIES, Client, PredictdError
from predictd.engines.api import Array
from predictd.server.bench.frames import END_HEADERS, HEADERS, frame
from predictd.server.bench.hpack import RequestHeaders
from tests.fixtures.abuse import HELLO
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.processes import GATED, custom

# It reads paths in C, and has no server that could end.
NATIVE = os.environ.get("PREDICTD_FRONTEND") == "native"
PATH = "/predictd.v1.PredictionService/Predict"


def call_a_wrong_path(daemon: Daemon) -> None:
    host, _, port = daemon.grpc.rpartition(":")
    block = RequestHeaders(PATH, "x").blocks()[0].replace(b"Service/", b"Service\x9a")
    assert b"\x9a" in block
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(HELLO + frame(HEADERS, END_HEADERS, 1, block))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def answered(client: Client, x: Array) -> bool:
    """Calls that come just as one server follows the other are cancelled."""
    try:
        return bool(client.predict("echo", {"x": x}, deadline=30).outputs["y"] == x)
    except PredictdError:
        return False


def test_calls_in_hand_are_answered_and_new_ones_taken(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    model = custom(tmp_path, "echo", GATED, run_gate=gate)
    options = ("--frontends", "1", "--instances", "2")
    with (
        running(model, *options, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        held = np.full((1, 1), HOLD, np.float32)
        slow = pool.submit(client.predict, "echo", {"x": held})
        daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 1, 30, "at work")
        children = daemon.children()
        for value in range(3):
            call_a_wrong_path(daemon)
            x = np.full((1, 1), HOLD + 1 + value, np.float32)
            with Client(daemon.grpc) as another:
                daemon.wait_until(partial(answered, another, x), 60, "served again")
        assert not slow.done()
        gate.touch()
        assert slow.result().outputs["y"] == HOLD
        daemon.wait_until(partial(answered, client, held), 60, "served on the old connection's successor")
        assert daemon.children() == children
        assert daemon.metric("predictd_frontend_restarts_total") == 0
        assert "Traceback" not in daemon.output()
        if not NATIVE:
            daemon.wait_said("whose name is no UTF-8")
