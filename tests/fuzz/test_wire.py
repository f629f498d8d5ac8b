"""Mutated messages to every method of a real daemon, and mutated HTTP/2: a proper status each time."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections import Counter
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest

from tests.bench import proc
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fuzz.api_messages import MESSAGES, PREDICTD, WORDS
from tests.fuzz.frames import mutator, send
from tests.fuzz.mutate import Mutator

MESSAGES_COUNT, CONNECTIONS_COUNT = 10_000, 1000
SOAK_MESSAGES_COUNT, SOAK_CONNECTIONS_COUNT = 100_000, 20_000
CALLERS = 16
ANSWER_SECONDS = 30.0
KEPT_BYTES = 128 * 2**20
# What is neither the client's fault nor a limit is ours.
OURS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.CANCELLED,
}
# Ends only when the client does.
_ENDLESS = "/grpc.health.v1.Health/Watch"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("wire")
    model = models.mlp(folder / "m.onnx", width=3)
    with running(model, "--frontends", "1", "--model-control", "none", folder=folder / "run") as daemon:
        yield daemon


async def status(channel: grpc.aio.Channel, method: str, message: bytes) -> grpc.StatusCode:
    """How the daemon ends a call with one message. It is one of many to gRPC, which is the same to every method."""
    call = channel.stream_stream(method, bytes, bytes)(timeout=ANSWER_SECONDS)
    try:
        await call.write(message)
        if method == _ENDLESS:
            answer = await call.read()
            call.cancel()
            return grpc.StatusCode.OK if isinstance(answer, bytes) else await call.code()
        await call.done_writing()
        while isinstance(await call.read(), bytes):
            pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    return await call.code()


async def bombard(target: str, count: int, seed: int) -> dict[str, Counter[grpc.StatusCode]]:
    draw = random.Random(seed)
    found: dict[str, Counter[grpc.StatusCode]] = {method: Counter() for method in MESSAGES}
    mutators = {method: iter(Mutator(seeds, draw, words=WORDS)) for method, seeds in MESSAGES.items()}
    methods = itertools.islice(itertools.cycle(MESSAGES), count)

    async def caller(channel: grpc.aio.Channel) -> None:
        for method in methods:
            message = next(mutators[method])
            code = await status(channel, method, message)
            found[method][code] += 1
            assert code not in OURS, f"{method}: {code.name} for {message.hex()}"
            # Nothing here takes long, whatever it says.
            assert code is not grpc.StatusCode.DEADLINE_EXCEEDED, f"{method}: {message.hex()}"

    async with grpc.aio.insecure_channel(target) as channel, asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller(channel))
    return found


def serves(daemon: Daemon) -> None:
    assert daemon.metric("predictd_frontend_restarts_total") == 0
    assert daemon.metric("predictd_worker_restarts_total") == 0
    assert "Traceback" not in daemon.output()
    method = PREDICTD + "GetModel"

    async def ask() -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(daemon.grpc) as channel:
            return await status(channel, method, MESSAGES[method][0])

    daemon.wait_until(lambda: asyncio.run(ask()) is grpc.StatusCode.OK, 60, "serving")


def bombarded(daemon: Daemon, count: int, seed: int) -> None:
    before = proc.memory_of(daemon.children()).rss_bytes
    found = asyncio.run(bombard(daemon.grpc, count, seed))
    serves(daemon)
    assert proc.memory_of(daemon.children()).rss_bytes - before < KEPT_BYTES
    # Some mutations leave a message right; most do not.
    assert sum(codes[grpc.StatusCode.INVALID_ARGUMENT] for codes in found.values()) > count / 10


def misframed(daemon: Daemon, count: int, seed: int) -> None:
    host, _, port = daemon.grpc.rpartition(":")
    before = proc.memory_of(daemon.children()).rss_bytes
    wrong = mutator(MESSAGES[PREDICTD + "Predict"], seed)
    for number, data in enumerate(itertools.islice(wrong, count)):
        assert send((host, int(port)), data, ANSWER_SECONDS), f"{number} of seed {seed}: {data[:2000].hex()}"
    serves(daemon)
    daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 0, 60, "idle")
    assert proc.memory_of(daemon.children()).rss_bytes - before < KEPT_BYTES


def test_every_method_ends_a_mutated_message_with_a_proper_status(daemon: Daemon) -> None:
    bombarded(daemon, MESSAGES_COUNT, seed=1)


def test_mutated_frames_end_their_own_connection_at_most(daemon: Daemon) -> None:
    misframed(daemon, CONNECTIONS_COUNT, seed=1)


@pytest.mark.soak
def test_every_method_ends_many_mutated_messages_with_a_proper_status(daemon: Daemon) -> None:
    bombarded(daemon, SOAK_MESSAGES_COUNT, secrets.randbits(32))


@pytest.mark.soak
def test_many_mutated_connections_end_alone(daemon: Daemon) -> None:
    misframed(daemon, SOAK_CONNECTIONS_COUNT, secrets.randbits(32))
