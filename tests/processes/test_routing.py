"""Labels and splits of a running daemon: set while traffic flows, without a failure, and kept over a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from predictd.client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    Label,
    NotFoundError,
    PredictdError,
    Split,
    UnavailableError,
)
from predictd.client.channel import PREDICT
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures import models
from tests.fixtures.daemon import Daemon
from tests.fixtures.processes import complaints, log, refused, scaled, serving, versioned

ALL = 'version_policy = "all"\n'
ROW = np.array([[1, 2, 3, 4]], np.float32)
REQUESTS = 10_000
CALLERS = 16
CHECKED_A_FLIP = 64
FLIPS = 20


@contextlib.asynccontextmanager
async def connections(daemon: Daemon, number: int) -> AsyncIterator[list[Any]]:
    """Ways to ask, each over a connection of its own, so that every front end gets some of them."""
    async with contextlib.AsyncExitStack() as stack:
        calls = []
        for _ in range(number):
            channel = grpc.aio.insecure_channel(daemon.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
            await stack.enter_async_context(channel)
            calls.append(
                channel.unary_unary(
                    PREDICT,
                    request_serializer=v1.PredictRequest.SerializeToString,
                    response_deserializer=v1.PredictResponse.FromString,
                )
            )
        yield calls


async def answered_by(call: Any, **choice: Any) -> int:
    """The version that answered, whose very answer it was."""
    tensor = v1.Tensor(name="x", dtype=v1.FP32, shape=ROW.shape, data=ROW.tobytes())
    response = await call(v1.PredictRequest(model="m", inputs=[tensor], **choice), timeout=60)
    # Each version multiplies by its number.
    assert response.outputs[0].data == (ROW * np.float32(response.version)).tobytes()
    return int(response.version)


def test_a_canary_of_ten_percent_gets_ten_percent(tmp_path: Path) -> None:
    versioned(tmp_path / "models", "m", {1: 1.0, 2: 2.0}, ALL)

    async def ask(daemon: Daemon) -> Counter[int]:
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client:
            await client.set_split("m", {1: 90, 2: 10})
        async with connections(daemon, 4) as calls:

            async def some(call: Any, number: int) -> list[int]:
                return [await answered_by(call) for _ in range(number)]

            found = await asyncio.gather(*(some(calls[n % 4], REQUESTS // 80) for n in range(80)))
        return Counter(version for each in found for version in each)

    with serving(tmp_path / "models", "--frontends", "2", folder=tmp_path / "run") as daemon:
        found = asyncio.run(ask(daemon))
        assert found.total() == REQUESTS
        # Six standard deviations of the number of successes: one fair run in 500 million is beyond.
        assert abs(found[2] - 1000) < 6 * (REQUESTS * 0.1 * 0.9) ** 0.5
        daemon.wait_metric("predictd_requests_total", found[2], model="m", version="2")


class Flipping:
    """Callers that never stop, and a version that all of them must get whenever no change is under way.

    Attributes:
        current: The version that every request gets now; None while it changes.
        checked: Answers that began and ended while it was the same.
    """

    def __init__(self) -> None:
        self.current: int | None = None
        self.generation = 0
        self.checked = 0
        self.over = False
        self._more = asyncio.Condition()

    async def call(self, ask: Callable[[], Coroutine[Any, Any, int]]) -> None:
        while not self.over:
            current, generation = self.current, self.generation
            version = await ask()
            if current is not None and generation == self.generation:
                assert version == current
                async with self._more:
                    self.checked += 1
                    self._more.notify_all()

    async def flip(self, version: int, change: Coroutine[Any, Any, None]) -> None:
        self.current = None
        self.generation += 1
        await change
        self.current = version
        self.generation += 1
        wanted = self.checked + CHECKED_A_FLIP
        async with self._more:
            await self._more.wait_for(lambda: self.checked >= wanted)


@pytest.mark.parametrize("what", ["label", "split"])
def test_a_flip_under_load_loses_nothing_and_is_over_once_it_is_answered(what: str, tmp_path: Path) -> None:
    versioned(tmp_path / "models", "m", {1: 1.0, 2: 2.0}, ALL)
    choice = {"label": "live"} if what == "label" else {}

    async def change(client: AsyncClient, version: int) -> None:
        if what == "label":
            await client.set_label("m", "live", version)
        else:
            await client.set_split("m", {version: 100})

    async def flip(daemon: Daemon) -> int:
        flipping = Flipping()
        async with AsyncClient(daemon.grpc, retries=NO_RETRIES) as client, connections(daemon, 8) as calls:
            await change(client, 1)
            callers = [
                asyncio.create_task(flipping.call(partial(answered_by, calls[n % 8], **choice)))
                for n in range(CALLERS)
            ]

            async def flips() -> None:
                for number in range(FLIPS):
                    version = 2 - number % 2
                    await flipping.flip(version, change(client, version))
                flipping.over = True

            # A caller that fails ends the test at once.
            await asyncio.wait_for(asyncio.gather(flips(), *callers), 120)
        return flipping.checked

    with serving(tmp_path / "models", "--frontends", "2", folder=tmp_path / "run") as daemon:
        assert asyncio.run(flip(daemon)) >= FLIPS * CHECKED_A_FLIP
        why = "what is set at run time ends with the daemon: --state-dir would keep it"
        daemon.wait_said(why)
        assert complaints(daemon) == [why]
        daemon.wait_until(
            lambda: (
                daemon.metric("predictd_requests_total", model="m")
                == daemon.metric("predictd_requests_total", model="m", status="OK")
                > 0
            ),
            30,
            "done with all, and well",
        )


def test_a_restart_keeps_what_was_set_and_says_where_it_came_from(tmp_path: Path) -> None:
    versioned(tmp_path / "models", "m", {1: 1.0, 2: 2.0, 3: 3.0}, ALL + "[labels]\nstable = 1\n")
    arguments = (tmp_path / "models", "--state-dir", tmp_path / "state")
    with (
        serving(*arguments, folder=tmp_path / "one") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert client.model("m").labels == (Label("stable", 1, "CONFIGURATION"),)
        client.set_label("m", "canary", 3)
        client.set_label("m", "stable", 2)
        client.set_split("m", {2: 100})
        assert complaints(daemon) == []
    (tmp_path / "models" / "m" / "3" / "model.onnx").unlink()
    (tmp_path / "models" / "m" / "3").rmdir()
    with (
        serving(*arguments, folder=tmp_path / "two") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        model = client.model("m")
        assert model.labels == (Label("canary", 3, "RUN_TIME"), Label("stable", 2, "RUN_TIME"))
        assert (model.split, model.default_version) == (Split({2: 100}, "RUN_TIME"), 2)
        assert (scaled(client, "m"), scaled(client, "m", label="stable")) == (2.0, 2.0)
        gone = "label 'canary' of model 'm' was set at run time to version 3, which is not there"
        daemon.wait_said(gone)
        assert complaints(daemon) == [f"{gone}: it has no effect until it is"]
        with pytest.raises(NotFoundError, match="label 'canary' of model 'm' means version 3"):
            scaled(client, "m", label="canary")
        client.set_label("m", "stable", None)
        client.set_split("m", {})
        assert client.model("m").labels[1] == Label("stable", 1, "CONFIGURATION")
    # What is not there is kept all the same.
    assert json.loads((tmp_path / "state" / "state.json").read_text()) == {
        "format": 1,
        "traffic": {"m": {"labels": {"canary": 3}}},
    }


def test_a_state_that_is_not_understood_stops_the_start_with_one_line(tmp_path: Path) -> None:
    versioned(tmp_path / "models", "m", {1: 1.0})
    state = tmp_path / "state"
    state.mkdir()
    (state / "state.json").write_text('{"format": 1, "traffic": {"m": {"labels": {"canary": "3"}}}}')
    refusal = refused(tmp_path / "models", "--state-dir", state, folder=tmp_path / "run")
    assert refusal.status == 2
    (line,) = refusal.complaints
    assert line.startswith(
        f"predictd: {state / 'state.json'} cannot be understood: Expected `int`, got `str`"
    )


def test_an_unready_version_is_refused_unless_asked_for_and_then_takes_over_once_it_is_ready(
    tmp_path: Path,
) -> None:
    folder = versioned(tmp_path / "models", "m", {1: 1.0}, ALL)
    (folder / "2").mkdir()
    (folder / "2" / "model.onnx").write_bytes(b"this is no model")
    with (
        serving(tmp_path / "models", folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        client.set_label("m", "live", 1)
        for change in (
            partial(client.set_label, "m", "live", 2),
            partial(client.set_split, "m", {1: 90, 2: 10}),
        ):
            with pytest.raises(PredictdError, match="version 2 of model 'm' is FAILED") as caught:
                change()
            assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(NotFoundError, match=r"^model 'm' has no version 3 \(versions: 2, 1\)$"):
            client.set_label("m", "live", 3, allow_unready=True)
        client.set_label("m", "fresh", 2, allow_unready=True)
        client.set_label("m", "live", 2, allow_unready=True)
        client.set_split("m", {1: 90, 2: 10}, allow_unready=True)
        # What meant something goes on to mean it, and the others share what the canary would get.
        assert client.model("m").labels == (Label("fresh", 2, "RUN_TIME"), Label("live", 1, "RUN_TIME", 2))
        assert scaled(client, "m", label="live") == 1.0
        assert {scaled(client, "m") for _ in range(100)} == {1.0}
        with pytest.raises(UnavailableError, match="version 2 of model 'm' failed to load"):
            scaled(client, "m", label="fresh")

        models.affine(tmp_path / "good.onnx", scale=2.0, bias=0.0).replace(folder / "2" / "model.onnx")
        daemon.wait_until(
            lambda: client.model("m").labels[1] == Label("live", 2, "RUN_TIME"), 30, "label moved"
        )
        assert (scaled(client, "m", label="live"), scaled(client, "m", label="fresh")) == (2.0, 2.0)


def test_labels_of_the_configuration_follow_it_without_a_load(tmp_path: Path) -> None:
    folder = versioned(tmp_path / "models", "m", {1: 1.0, 2: 2.0}, ALL + "[labels]\nlive = 1\n")
    with (
        serving(tmp_path / "models", folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert scaled(client, "m", label="live") == 1.0
        (folder / "model.toml").write_text(ALL + "\n[labels]\nlive = 2\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_until(lambda: scaled(client, "m", label="live") == 2.0, 30, "label moved")
        assert not [event for event in log(daemon) if event.message.startswith(("loading", "retiring"))]


def test_nobody_changes_anything_over_the_network(tmp_path: Path) -> None:
    versioned(tmp_path / "models", "m", {1: 1.0})
    with (
        serving(tmp_path / "models", folder=tmp_path / "run", grpc="0.0.0.0:0") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        for change in (partial(client.set_label, "m", "a", 1), partial(client.set_split, "m", {1: 100})):
            with pytest.raises(PredictdError, match="gRPC listens beyond this machine") as caught:
                change()
            assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
        assert (client.model("m").labels, client.model("m").split) == ((), None)
