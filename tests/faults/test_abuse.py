"""Attacks over the wire are refused or bounded, and leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client
from predictd.client.channel import PREDICT, PREDICT_STREAM
from predictd.server.bench.hpack import literal
from tests.bench import proc
from tests.fixtures import models
from tests.fixtures.abuse import (
    ATTACKS,
    GZIP,
    MIB,
    attacking,
    bomb,
    flood,
    floods,
    idle_connections,
    many_streams,
    message,
    open_ones,
    reset_rapidly,
)
from tests.fixtures.daemon import Daemon, running

NATIVE = os.environ.get("PREDICTD_FRONTEND") == "native"
# Of one header; beyond it nothing more can be said on its connection.
NGHTTP2_HEADER_BYTES = 64 * 1024
WIDTH = 64
CONNECTIONS = 50
UPLOAD_MIB = 64
# What glibc and gRPC keep of what they once had.
KEPT_BYTES = 48 * MIB


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("abuse")
    model = models.mlp(folder / "m.onnx", width=WIDTH)
    options = (
        "--frontends",
        "1",
        "--max-connections",
        str(CONNECTIONS),
        "--upload-limit",
        f"{UPLOAD_MIB}MiB",
    )
    with running(model, *options, "--max-message-size", "32MiB", folder=folder / "run") as daemon:
        serves(daemon)
        yield daemon


def serves(daemon: Daemon) -> None:
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        assert client.predict("m", {"x": np.ones((2, WIDTH), np.float32)}, deadline=30).outputs


def anonymous_bytes(daemon: Daemon) -> float:
    return daemon.metric("predictd_process_anonymous_bytes", role="frontend")


def call_of(channel: grpc.Channel) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(PREDICT, bytes, bytes)


@pytest.mark.parametrize("path", [PREDICT, PREDICT_STREAM, "/predictd.v1.PredictionService/GetModel"])
def test_messages_without_an_end_take_no_more_memory_than_the_limit(daemon: Daemon, path: str) -> None:
    before = anonymous_bytes(daemon)
    with attacking(daemon.grpc) as attacker:
        streams = [attacker.upload(message(32 * MIB, sent_bytes=31 * MIB), path=path) for _ in range(8)]
        attacker.go_on(30, lambda: len(attacker.ended) == len(streams))
        assert len(attacker.ended) == len(streams), "some of the messages are still received"
        # The last few before the first look, and what the sum may be beyond it.
        assert anonymous_bytes(daemon) - before < 8 * 32 * MIB
        serves(daemon)
    daemon.wait_until(lambda: anonymous_bytes(daemon) - before < KEPT_BYTES, 40, "back to where it was")


def test_messages_that_say_that_they_are_too_large_are_refused_before_they_come(daemon: Daemon) -> None:
    with attacking(daemon.grpc) as attacker:
        for _ in range(50):
            attacker.upload(message(1024 * MIB, sent_bytes=1000))
        attacker.go_on(30, lambda: len(attacker.ended) == 50)
        assert len(attacker.ended) == 50
        assert not attacker.gone
    serves(daemon)


def test_a_compressed_message_is_unpacked_no_further_than_to_the_limit(daemon: Daemon) -> None:
    before = anonymous_bytes(daemon)
    with grpc.insecure_channel(
        daemon.grpc, [("grpc.max_send_message_length", -1)], compression=grpc.Compression.Gzip
    ) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            call_of(channel)(bytes(64 * MIB), timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with attacking(daemon.grpc) as attacker:
        for _ in range(3):
            attacker.upload(bomb(64 * MIB), extra=GZIP)
        attacker.go_on(30, lambda: len(attacker.ended) == 3)
        assert len(attacker.ended) == 3
    serves(daemon)
    daemon.wait_until(lambda: anonymous_bytes(daemon) - before < KEPT_BYTES, 40, "back to where it was")


@pytest.mark.parametrize(("size", "taken"), [(8_000, True), (15_000, True), (17_000, False), (MIB, False)])
def test_metadata_have_a_limit(daemon: Daemon, size: int, taken: bool) -> None:
    with grpc.insecure_channel(daemon.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        call_of(channel)(b"", timeout=30, metadata=(("x-large", "a" * size),))
    expected = grpc.StatusCode.INVALID_ARGUMENT if taken else grpc.StatusCode.RESOURCE_EXHAUSTED
    if NATIVE and size > NGHTTP2_HEADER_BYTES:
        expected = grpc.StatusCode.UNAVAILABLE
    assert caught.value.code() is expected, caught.value.details()


@pytest.mark.skipif(NATIVE, reason="nghttp2 ends a connection for a header of more than 64 KiB")
def test_headers_of_a_megabyte_do_not_end_the_connection_of_others_nor_their_own(daemon: Daemon) -> None:
    with attacking(daemon.grpc) as attacker:
        # The limit holds from when the client has acknowledged it.
        attacker.go_on(10, lambda: attacker.greeted)
        large = [attacker.headers(extra=literal(b"x-large", b"a" * MIB)) for _ in range(3)]
        attacker.go_on(30, lambda: set(large) <= set(attacker.ended))
        assert set(large) <= set(attacker.ended)
        assert all(b"exceeds hard limit" in block for block in attacker.ended.values())
    serves(daemon)


def test_connections_beyond_the_limit_are_closed_and_the_others_kept(daemon: Daemon) -> None:
    idle = idle_connections(daemon.grpc, CONNECTIONS + 20)
    try:
        daemon.wait_until(lambda: open_ones(idle, 0.2) <= CONNECTIONS, 30, "rid of those beyond the limit")
        assert open_ones(idle, 0.5) >= CONNECTIONS // 2
    finally:
        for connection in idle:
            connection.close()
    # The daemon hears of each end in its own time.
    daemon.wait_until(lambda: has_room(daemon), 30, "room for new connections")
    serves(daemon)


def has_room(daemon: Daemon) -> bool:
    """Whether several new connections are kept, so that these are no longer in the way of the next."""
    several = idle_connections(daemon.grpc, 5)
    try:
        return open_ones(several, 0.2) == len(several)
    finally:
        for connection in several:
            connection.close()


@pytest.mark.parametrize("name", floods())
def test_a_flood_of_frames_is_survived(daemon: Daemon, name: str) -> None:
    before = anonymous_bytes(daemon)
    with attacking(daemon.grpc) as attacker:
        flood(attacker, name, 0.2)
        serves(daemon)
    assert anonymous_bytes(daemon) - before < 256 * MIB
    assert daemon.metric("predictd_frontend_restarts_total") == 0


def test_calls_that_are_cancelled_as_they_begin_are_survived(daemon: Daemon) -> None:
    with attacking(daemon.grpc) as attacker:
        reset_rapidly(attacker, 0.5)
        serves(daemon)
    assert daemon.metric("predictd_frontend_restarts_total") == 0


def test_a_thousand_streams_are_held_and_freed(daemon: Daemon) -> None:
    pids = daemon.children()
    before = proc.memory_of(pids).rss_bytes
    with attacking(daemon.grpc) as attacker:
        many_streams(attacker, 1000)
        attacker.go_on(30, lambda: not attacker.sending)
        assert not attacker.gone
        serves(daemon)
        assert proc.memory_of(pids).rss_bytes - before < 256 * MIB
    serves(daemon)
    assert daemon.children() == pids
    daemon.wait_metric("predictd_in_flight", 0)


def test_every_attack_has_a_name_that_the_long_test_goes_through() -> None:
    assert set(floods()) < set(ATTACKS)
