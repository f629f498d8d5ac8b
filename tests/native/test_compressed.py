"""Compressed messages of methods that the loop in C serves: what it inflates by itself, and what is Python's."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from typing import Any

import grpc
import pytest

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.frontend.native.counts import parse_ways
from tests.fixtures.frontend import config, doubled
from tests.fixtures.scripted_workers import FakePool, FakeWorker
from tests.native.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    SETTINGS,
    WRITTEN_OUT,
    frame,
    grpc_status,
    header_block,
    message,
    raw_client,
)
from tests.native.hot_rig import (
    INFER_STREAM,
    PREDICT,
    PREDICT_STREAM,
    HotRig,
    call,
    infer,
    play,
    predict,
    started,
    stream,
    tickets,
)

# Those that gRPC's clients send compressed: they come to fewer bytes.
ROWS = [1.0] * 32
LARGE = 20_000


def noise(count: int) -> list[float]:
    """So many numbers that cannot be compressed well."""
    draw = random.Random(count)
    return [draw.randrange(2**24) / 2.0 for _ in range(count)]


def packed(content: bytes) -> bytes:
    """A compressed message with gRPC's prefix."""
    return b"\1" + len(content).to_bytes(4) + content


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_answered_in_c(compression: grpc.Compression) -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, *ROWS)
        for request in (predict(*ROWS, id="a"), infer(*ROWS, id="a")):
            waiting = call(rig, request, compression=compression)
            found = await tickets(pool, 1)
            assert rig.mine(found) == [True]
            worker.answer(found)
            answer = await waiting
            assert answer.id == "a"
            outputs = (
                [answer.outputs[0].data]
                if isinstance(answer, v1.PredictResponse)
                else answer.raw_output_contents
            )
            assert list(outputs) == [doubled(*ROWS)]

    play(scenario)


def one_of_stream(method: str, message: bytes) -> tuple[str, bytes]:
    """The id of an answer in a stream, and its output."""
    if method == PREDICT_STREAM:
        predicted = v1.PredictStreamResponse.FromString(message).response
        return predicted.id, predicted.outputs[0].data
    inferred = oip_pb.ModelStreamInferResponse.FromString(message).infer_response
    return inferred.id, inferred.raw_output_contents[0]


@pytest.mark.parametrize("method", [PREDICT_STREAM, INFER_STREAM])
def test_streams_of_messages_compressed_and_not_are_answered_in_their_order(method: str) -> None:
    make: Any = predict if method == PREDICT_STREAM else infer
    # Too small to be compressed, compressed, of another shape, too large to be inflated in C.
    sent = ([3.0, 4.0], ROWS, ROWS[:20], noise(LARGE), ROWS) * 3

    async def talk(rig: HotRig, pool: FakePool, worker: FakeWorker) -> list[tuple[str, bytes]]:
        async with stream(rig, method, compression=grpc.Compression.Gzip) as opened:

            async def send() -> None:
                for number, values in enumerate(sent):
                    await opened.write(make(*values, id=str(number)).SerializeToString())
                await opened.done_writing()

            async def answer() -> None:
                left = len(sent)
                while left:
                    found = await tickets(pool, 1)
                    worker.answer(found)
                    left -= len(found)

            async def read() -> list[tuple[str, bytes]]:
                return [one_of_stream(method, message) async for message in opened]

            _, _, answers = await asyncio.gather(send(), answer(), read())
        return answers

    async def scenario(rig: HotRig) -> None:
        pool = rig.add_pool()
        worker = rig.add_worker(1, pool)
        rig.publish(config=config(11, max_request_rows=LARGE))
        expected = [(str(number), doubled(*values)) for number, values in enumerate(sent)]
        # The second time the shapes are known.
        for _ in range(2):
            rig.server.command("ways", b"")
            answers = await talk(rig, pool, worker)
            in_order = answers if method == INFER_STREAM else sorted(answers, key=lambda one: int(one[0]))
            assert in_order == expected
        ways = parse_ways(rig.server.command("ways", b""))
        assert ways["hot"] > 0
        assert ways["compressed"] >= 3

    play(scenario)


# How the calls are compressed, what is sent, and the statuses that end them. Each "0" has an answer.
RIGHT = predict(*ROWS).SerializeToString()
PACKED = gzip.compress(RIGHT)
CALLS: dict[str, tuple[str | None, bytes, int]] = {
    "right": ("gzip", packed(PACKED), 0),
    "deflate": ("deflate", packed(zlib.compress(RIGHT)), 0),
    "twice": ("gzip", packed(PACKED) * 2, 0),
    "not compressed": ("gzip", message(RIGHT), 0),
    "not compressed by something else": ("snappy", message(RIGHT), 0),
    "by something else": ("snappy", packed(PACKED), 12),
    "by nobody knows what": (None, packed(PACKED), 13),
    "cut off": ("gzip", packed(PACKED)[:-1], 13),
    "cut off before": ("gzip", packed(PACKED[:-1]), 13),
    "and more": ("gzip", packed(PACKED + b"x"), 13),
    "a bomb": ("gzip", packed(gzip.compress(bytes(64 << 20))), 8),
    "no request": ("gzip", packed(gzip.compress(bytes(200))), 3),
    "no request and large": ("gzip", packed(gzip.compress(bytes(200_000))), 3),
}


def test_what_is_wrong_or_large_is_told_by_python(caplog: pytest.LogCaptureFixture) -> None:
    def talk(address: str) -> dict[str, int | None]:
        found = {}
        with raw_client(address) as raw:
            raw.send(frame(SETTINGS, 0, 0, WRITTEN_OUT))
            for number, (name, (encoding, sent, _)) in enumerate(CALLS.items()):
                block = header_block(path=PREDICT, grpc_encoding=encoding)
                raw.send(frame(HEADERS, END_HEADERS, 2 * number + 1, block))
                # In pieces, as they may come.
                raw.send(frame(DATA, 0, 2 * number + 1, sent[:7]), frame(DATA, 0, 2 * number + 1, sent[7:90]))
                raw.send(frame(DATA, END_STREAM, 2 * number + 1, sent[90:]))
                found[name] = grpc_status(raw.until(HEADERS, END_STREAM).payload)
        return found

    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, *ROWS)
        rig.server.command("ways", b"")
        talking = asyncio.create_task(asyncio.to_thread(talk, rig.address))
        for _ in [status for _, _, status in CALLS.values() if status == 0]:
            found = await tickets(pool, 1)
            assert rig.mine(found) == [True]
            worker.answer(found)
        assert await talking == {name: status for name, (_, _, status) in CALLS.items()}
        ways = parse_ways(rig.server.command("ways", b""))
        assert {way: count for way, count in ways.items() if count} == {
            "hot": 5,
            "compressed": 6,
            "content": 1,
        }

    play(scenario)
    assert not [record for record in caplog.records if record.name.startswith("predictd")]


def test_messages_that_come_to_much_are_inflated_in_c_for_a_share_of_a_round_alone() -> None:
    bombs = 60
    bomb = packed(gzip.compress(bytes(120_000)))

    def talk(address: str) -> int | None:
        with raw_client(address) as raw:
            block = header_block(path=PREDICT_STREAM, grpc_encoding="gzip")
            raw.send(frame(HEADERS, END_HEADERS, 1, block), frame(DATA, END_STREAM, 1, bomb * bombs))
            return grpc_status(raw.until(HEADERS, END_STREAM).payload)

    async def scenario(rig: HotRig) -> None:
        await started(rig, *ROWS)
        rig.server.command("ways", b"")
        assert await asyncio.to_thread(talk, rig.address) == 0
        ways = parse_ways(rig.server.command("ways", b""))
        # Either way they are no requests.
        assert ways["compressed"] + ways["content"] == bombs
        assert ways["compressed"] > 0

    play(scenario)
