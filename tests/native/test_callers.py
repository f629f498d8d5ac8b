"""Who calls, how many requests one client may have, and the log of requests, where the loop in C answers."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import grpc
import grpc.aio
import pytest

from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.access.identity import Identity, Role
from predictd.server.access.tokens import Keyring, digest_of
from predictd.server.config.request_log import RequestLogRule
from predictd.server.frontend.native.counts import parse_ways
from predictd.server.observe.logs import REQUESTS
from predictd.server.transport.records import Status
from tests.fixtures.fake_worker import FakePool, FakeWorker
from tests.fixtures.frontend import doubled, publication, view
from tests.native.hot_rig import (
    PREDICT_STREAM,
    STARTED_WITH,
    HotRig,
    call,
    infer,
    play,
    predict,
    refusal,
    started,
    stream,
    tickets,
    until,
)

INFERS = frozenset({Role.INFER})
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def keyring(**more: Any) -> Keyring:
    """One caller, who has the token `secret`."""
    return Keyring([(digest_of("secret"), Identity("friend", INFERS, **more))])


def bearer(token: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {token}"),)}


FRIEND = bearer("secret")


async def ask(rig: HotRig, pool: FakePool, worker: FakeWorker, **options: Any) -> bool:
    """Whether a request that is answered was the loop's own."""
    waiting = call(rig, predict(3, 4), **options)
    (ticket,) = await tickets(pool, 1)
    worker.answer([ticket])
    assert (await waiting).outputs[0].data == doubled(3, 4)
    return rig.mine([ticket]) == [True]


async def ask_until(hot: bool, rig: HotRig, pool: FakePool, worker: FakeWorker, **options: Any) -> int:
    """Ask until it is the loop's own, or not; how often that took."""
    asked = 1
    while await ask(rig, pool, worker, **options) is not hot:
        asked += 1
    return asked


def test_a_caller_that_python_let_in_is_known_until_python_takes_that_back() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2, **FRIEND)
        assert await ask(rig, pool, worker, **FRIEND)
        # Whoever shows something else is somebody else, and nothing is told that Python does not tell.
        twice = (*FRIEND["metadata"], *FRIEND["metadata"])
        for options in ({}, bearer("Secret"), {"metadata": twice}):
            code, text = await refusal(call(rig, predict(3, 4), **options))
            assert code is grpc.StatusCode.UNAUTHENTICATED, options
            assert ("is not valid" if options else "is needed") in text
        other_way: Any = {"metadata": (("authorization", "bearer secret"),)}
        assert not await ask(rig, pool, worker, **other_way)
        assert await ask(rig, pool, worker, **other_way)
        # A lane that came later is nobody's yet.
        rig.routes.publish(publication(view(2), name="n"))
        rig.hot.published("n")
        assert not await ask(rig, pool, worker, **FRIEND)
        assert await ask(rig, pool, worker, **FRIEND)
        # Other keys of the same caller; then none.
        rig.access.take(keyring())
        assert not await ask(rig, pool, worker, **FRIEND)
        assert await ask(rig, pool, worker, **FRIEND)
        async with stream(rig, PREDICT_STREAM, **FRIEND) as opened:
            await opened.write(predict(3, 4).SerializeToString())
            found = await tickets(pool, 1)
            assert rig.mine(found) == [True]
            worker.answer(found)
            assert v1.PredictStreamResponse.FromString(await opened.read()).error.code == 0
            rig.access.take(Keyring())
            assert (await refusal(call(rig, predict(3, 4), **FRIEND)))[0] is grpc.StatusCode.UNAUTHENTICATED
            await opened.write(predict(3, 4).SerializeToString())
            answer = v1.PredictStreamResponse.FromString(await opened.read())
            assert answer.error.code == grpc.StatusCode.UNAUTHENTICATED.value[0]
            # It goes on, and is known again with the next keys.
            rig.access.take(keyring())
            for expected in (False, True):
                await opened.write(predict(3, 4).SerializeToString())
                found = await tickets(pool, 1)
                assert rig.mine(found) == [expected]
                worker.answer(found)
                assert v1.PredictStreamResponse.FromString(await opened.read()).error.code == 0
            await opened.done_writing()
            assert await opened.read() is grpc.aio.EOF
            assert await opened.code() is grpc.StatusCode.OK
        rig.hot.collect()
        assert rig.recorder.take().ways["caller"] >= 8

    play(scenario, keyring=keyring(models=("m",)))


def test_a_stream_without_a_token_is_refused_at_its_headers() -> None:
    async def scenario(rig: HotRig) -> None:
        await started(rig, 1, 2, **FRIEND)
        async with stream(rig, PREDICT_STREAM) as opened:
            assert await opened.code() is grpc.StatusCode.UNAUTHENTICATED

    play(scenario, keyring=keyring())


def test_a_token_that_ends_is_good_no_more_and_one_for_another_model_never_was() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2, **FRIEND)
        await ask_until(True, rig, pool, worker, **FRIEND)
        # While it is known, too, the other models are not its own.
        code, text = await refusal(call(rig, predict(3, 4, model="n"), **FRIEND))
        assert (code, "may not use model 'n'" in text) == (grpc.StatusCode.PERMISSION_DENIED, True)
        rig.access.take(keyring(models=("n",)))
        for request in (predict(3, 4), infer(3, 4), predict(3, 4)):
            code, text = await refusal(call(rig, request, **FRIEND))
            assert (code, "may not use model 'm'" in text) == (grpc.StatusCode.PERMISSION_DENIED, True)
        ends = time.time() + 2
        rig.access.take(keyring(expires_unix_seconds=ends))
        await ask_until(True, rig, pool, worker, **FRIEND)
        await asyncio.sleep(max(ends - time.time(), 0))
        code, text = await refusal(call(rig, predict(3, 4), **FRIEND))
        assert (code, "not valid" in text) == (grpc.StatusCode.UNAUTHENTICATED, True)

    play(scenario, keyring=keyring(models=("m",)))


def test_a_client_has_so_many_requests_in_both_halves_together() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        await ask_until(True, rig, pool, worker)

        def count() -> int:
            return int.from_bytes(rig.server.command("client_in_flight", b"ipv4:127.0.0.1"), "little")

        for first, second in ((predict(3, 4), predict(3, 4)), (predict(3, 4), predict(1, 2, 3, 4))):
            waiting = [call(rig, first)]
            found = await tickets(pool, 1)
            waiting.append(call(rig, second))
            found += await tickets(pool, 1)
            assert rig.mine(found) == [True, len(second.inputs[0].data) == 8]
            for request in (predict(3, 4), infer(3, 4), predict(1, 2, 3, 4, 5, 6)):
                code, text = await refusal(call(rig, request))
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert text == (
                    "this client has 2 requests in flight, which is its limit (max_concurrent_per_client)"
                )
            # One that nobody waits for any more does not count.
            waiting[0].cancel()
            await until(lambda: count() == 1)
            waiting[0] = call(rig, predict(5, 6))
            found += await tickets(pool, 1)
            worker.answer(found)
            for each in waiting:
                await each
        async with stream(rig, PREDICT_STREAM) as opened:
            for _ in range(3):
                await opened.write(predict(3, 4).SerializeToString())
            refused = v1.PredictStreamResponse.FromString(await opened.read())
            assert refused.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
            worker.answer(await tickets(pool, 2))
            for _ in range(2):
                assert v1.PredictStreamResponse.FromString(await opened.read()).error.code == 0
        await until(lambda: count() == 0)

    play(scenario, client_limit=2)


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the lines of requests say, without times and addresses."""
    names = ("api", "status", "model", "version", "request_id", "rows", "batch_rows", "caller", "trace_id")
    return [
        {name: getattr(record, name) for name in names if hasattr(record, name)}
        for record in caplog.records
        if record.name == REQUESTS
    ]


def test_requests_are_logged_by_whoever_ends_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, REQUESTS)
    trace = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")
    options = {"metadata": (*FRIEND["metadata"], trace)}

    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2, **options)
        asked = await ask_until(True, rig, pool, worker, **options)
        # The loop's lines come when Python looks, which may be after the answers that they are about.
        await until(lambda: len(logged(caplog)) == STARTED_WITH + asked)
        caplog.clear()
        rig.server.command("ways", b"")

        async def line() -> dict[str, Any]:
            await until(lambda: logged(caplog))
            (found,) = logged(caplog)
            (record,) = [record for record in caplog.records if record.name == REQUESTS]
            assert str(vars(record)["client"]).startswith("ipv4:127.0.0.1:")
            assert 0 < vars(record)["duration_seconds"] < 60
            caplog.clear()
            return found

        who = {"caller": "friend", "trace_id": TRACE}
        for request, api in ((predict(3, 4, id="a", version=1), "predictd.v1"), (infer(3, 4, id="a"), "oip")):
            waiting = call(rig, request, **options)
            worker.answer(await tickets(pool, 1))
            await waiting
            about = {"api": api, "model": "m", "request_id": "a", **who}
            counted = {"version": 1, "rows": 1, "batch_rows": 1}
            assert await line() == {**about, "status": "OK", **counted}
            # Cancelled: it knows the version only if it names one.
            named = {"version": 1} if api == "predictd.v1" else {}
            waiting = call(rig, request, **options)
            found = await tickets(pool, 1)
            waiting.cancel()
            assert await line() == {**about, "status": "CANCELLED", **named}
            worker.answer(found)
            # Handed over, and brought to its end by Python.
            waiting = call(rig, request, **options)
            worker.fail(await tickets(pool, 1), Status.ENGINE_FAILED, "no")
            with pytest.raises(grpc.aio.AioRpcError):
                await waiting
            assert await line() == {**about, "status": "INTERNAL", **named}
        ways = parse_ways(rig.server.command("ways", b""))
        assert {way: count for way, count in ways.items() if count} == {"hot": 4, "handed": 2}

    play(scenario, keyring=keyring(), log=RequestLogRule(fraction=1.0))


@pytest.mark.parametrize("rule", [RequestLogRule(per_second=0.001), RequestLogRule(fraction=1e-9)], ids=str)
def test_a_sample_of_requests_is_logged(rule: RequestLogRule, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, REQUESTS)

    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        for _ in range(20):
            await ask(rig, pool, worker)
        rig.hot.collect()
        assert rig.recorder.take().ways["hot"] >= 15
        assert len(logged(caplog)) == (1 if rule.per_second else 0)

    play(scenario, log=rule)


def test_with_too_many_lines_to_write_requests_are_pythons() -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        await ask_until(True, rig, pool, worker)
        lines = rig.hot._lines
        assert lines is not None
        # As if so many had been written since, and none read.
        lines._read[0] = (lines._read[0] - 1024) % 2**64
        assert not await ask(rig, pool, worker)
        lines._read[0] = (lines._read[0] + 1024) % 2**64
        assert await ask(rig, pool, worker)
        assert parse_ways(rig.server.command("ways", b""))["busy"] == 1

    play(scenario, log=RequestLogRule(fraction=1.0))
