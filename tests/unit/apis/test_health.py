from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2 as pb

from predictd.server.frontend.apis.health import Health
from tests.unit.apis.test_fake_core import ECHO_1, MODELS, FakeCore, refusal, serving, unary

if TYPE_CHECKING:
    import pytest

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN

SERVICES = ("predictd.v1.PredictionService", "inference.GRPCInferenceService")


async def check(channel: grpc.aio.Channel, service: str) -> int:
    data = await unary(channel, CHECK)(pb.HealthCheckRequest(service=service).SerializeToString())
    return int(pb.HealthCheckResponse.FromString(data).status)


def watch(channel: grpc.aio.Channel, service: str) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
    multicallable: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH)
    return multicallable(pb.HealthCheckRequest(service=service).SerializeToString())


async def told(call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> int:
    data = await call.read()
    assert isinstance(data, bytes), "the watch has ended"
    return int(pb.HealthCheckResponse.FromString(data).status)


def test_nothing_is_served_before_the_first_look_at_the_core() -> None:
    async def scenario() -> list[int]:
        async with serving(Health(SERVICES).handlers()) as channel:
            return [await check(channel, service) for service in ("", *SERVICES)]

    assert asyncio.run(scenario()) == [NOT_SERVING] * 3


def test_services_follow_the_server_and_models_their_versions() -> None:
    async def scenario(ready: bool) -> dict[str, int]:
        core = FakeCore()
        core.ready = ready
        health = Health(SERVICES)
        health.update(core)
        async with serving(health.handlers()) as channel:
            names = ("", *SERVICES, "echo", "broken")
            return {name: await check(channel, name) for name in names}

    models = {"echo": SERVING, "broken": NOT_SERVING}
    assert asyncio.run(scenario(ready=True)) == dict.fromkeys(("", *SERVICES), SERVING) | models
    assert asyncio.run(scenario(ready=False)) == dict.fromkeys(("", *SERVICES), NOT_SERVING) | models


def test_a_model_cannot_take_the_name_of_a_service() -> None:
    async def scenario() -> int:
        core = FakeCore()
        core.known = [replace(MODELS[0], name=SERVICES[0])]
        health = Health(SERVICES)
        health.update(core)
        async with serving(health.handlers()) as channel:
            return await check(channel, SERVICES[0])

    assert asyncio.run(scenario()) == SERVING


def test_check_of_an_unknown_service_is_not_found() -> None:
    async def scenario() -> None:
        async with serving(Health(SERVICES).handlers()) as channel:
            request = pb.HealthCheckRequest(service="nope").SerializeToString()
            error = await refusal(unary(channel, CHECK)(request))
            assert error.code() is grpc.StatusCode.NOT_FOUND
            malformed = await refusal(unary(channel, CHECK)(b"\xff"))
            assert malformed.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(scenario())


def test_a_watch_tells_of_each_change_of_an_unknown_service_too() -> None:
    async def scenario() -> None:
        core = FakeCore()
        core.known = ()
        health = Health(SERVICES)
        health.update(core)
        async with serving(health.handlers()) as channel:
            call = watch(channel, "echo")
            assert await told(call) == SERVICE_UNKNOWN
            core.known = [replace(MODELS[1], versions=(replace(ECHO_1, state="LOADING"),))]
            health.update(core)
            assert await told(call) == NOT_SERVING
            core.known = MODELS
            health.update(core)
            assert await told(call) == SERVING
            core.known = ()
            health.update(core)
            assert await told(call) == SERVICE_UNKNOWN

    asyncio.run(scenario())


def test_a_watch_tells_nothing_twice() -> None:
    async def scenario() -> None:
        core = FakeCore()
        health = Health(SERVICES)
        health.update(core)
        async with serving(health.handlers()) as channel:
            call = watch(channel, "")
            assert await told(call) == SERVING
            core.known = ()
            health.update(core)
            await check(channel, "")
            core.ready = False
            health.update(core)
            assert await told(call) == NOT_SERVING

    asyncio.run(scenario())


def test_a_watcher_that_leaves_does_not_silence_the_others() -> None:
    async def scenario() -> None:
        core = FakeCore()
        health = Health(SERVICES)
        health.update(core)
        async with serving(health.handlers()) as channel:
            leaving, staying = watch(channel, ""), watch(channel, "")
            assert (await told(leaving), await told(staying)) == (SERVING, SERVING)
            leaving.cancel()
            await check(channel, "")
            core.ready = False
            health.update(core)
            assert await told(staying) == NOT_SERVING

    asyncio.run(scenario())


def test_shutting_down_is_final_and_closing_ends_the_watches(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        core = FakeCore()
        health = Health(SERVICES)
        health.update(core)
        async with serving(health.handlers()) as channel:
            call = watch(channel, "echo")
            assert await told(call) == SERVING
            health.shut_down()
            assert await told(call) == NOT_SERVING
            health.update(core)
            for name in ("", *SERVICES, "echo"):
                assert await check(channel, name) == NOT_SERVING
            health.close()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert caplog.records == []


def test_a_watcher_is_told_the_last_status_also_when_the_end_follows_at_once() -> None:
    async def scenario() -> None:
        health = Health(SERVICES)
        health.update(FakeCore())
        async with serving(health.handlers()) as channel:
            call = watch(channel, "echo")
            assert await told(call) == SERVING
            health.shut_down()
            health.close()
            assert await told(call) == NOT_SERVING
            assert await call.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def test_a_malformed_watch_is_refused() -> None:
    async def scenario() -> grpc.StatusCode:
        async with serving(Health(SERVICES).handlers()) as channel:
            multicallable: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(WATCH)
            return await multicallable(b"\xff").code()

    assert asyncio.run(scenario()) is grpc.StatusCode.INVALID_ARGUMENT
