"""Addresses behind which nobody is, or somebody who says nothing; connections that go silent or end all the time."""

from __future__ import annotations

import socket
import threading
from concurrent import futures
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from predictd.client import Client, DeadlineExceededError, Prediction, channel
from tests.fixtures.prediction_service import FakeService, in_order, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = {"x": [1]}


@contextmanager
def mute() -> Iterator[str]:
    """One who accepts and never answers: the kernel does, as long as nobody looks after its queue."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def freezing(target: str) -> Iterator[tuple[str, threading.Event]]:
    """Passes on what comes, until it is told to swallow what comes on the connections that there are."""
    host, _, port = target.rpartition(":")
    listener, frozen = socket.create_server(("127.0.0.1", 0)), threading.Event()
    over = threading.Event()
    ends: list[socket.socket] = []

    def pass_on(source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not silent.is_set():
                    sink.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while not over.is_set():
                ours, _ = listener.accept()
                theirs = socket.create_connection((host, int(port)))
                # Those that come afterwards are well.
                silent = threading.Event() if frozen.is_set() else frozen
                for source, sink in ((ours, theirs), (theirs, ours)):
                    threads.append(threading.Thread(target=pass_on, args=(source, sink, silent)))
                    threads[-1].start()
                    ends.append(source)

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", frozen
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        threads[0].join()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads[1:]:
            thread.join()
        for end in (listener, *ends):
            end.close()


def test_addresses_where_nobody_answers_are_passed_over(make_client: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"127.0.0.1:{listener.getsockname()[1]}"
    with serving(FakeService(stream=in_order)) as target, mute() as silent:
        for addresses in ((dead, target), (silent, target), (target, silent, dead)):
            with make_client(f"ipv4:{','.join(addresses)}") as client:
                for _ in range(5):
                    assert isinstance(client.predict("echo", ONE, deadline=30), Prediction)
                answers = list(client.predict_many("echo", [ONE] * 20, deadline=30))
                assert {type(answer) for answer in answers} == {Prediction}


def test_who_accepts_and_says_nothing_runs_into_the_deadline(make_client: Any) -> None:
    with mute() as target, make_client(target) as client:
        with pytest.raises(DeadlineExceededError):
            client.predict("echo", ONE, deadline=0.2)
        (answer,) = client.predict_many("echo", [ONE], deadline=0.2)
        assert isinstance(answer, DeadlineExceededError)


def test_a_connection_that_went_silent_is_left_for_another_within_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the cable were pulled: nobody says that the connection is over."""
    patience = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
    assert sum(dict(channel.OPTIONS)[name] for name in patience[:2]) < 60_000
    options = tuple((name, 200 if name in patience else value) for name, value in channel.OPTIONS)
    monkeypatch.setattr(channel, "OPTIONS", options)
    with (
        serving(FakeService(stream=in_order)) as target,
        freezing(target) as (address, frozen),
        Client(address) as client,
    ):
        client.predict("echo", ONE)
        frozen.set()
        assert isinstance(client.predict("echo", ONE, deadline=60), Prediction)


def test_a_server_that_says_goodbye_all_the_time_costs_no_call(make_client: Any) -> None:
    service = FakeService(stream=in_order)
    options = [("grpc.max_connection_age_ms", 50), ("grpc.max_connection_age_grace_ms", 60_000)]
    with futures.ThreadPoolExecutor(max_workers=16) as pool:
        server = grpc.server(pool, options=options)
        server.add_generic_rpc_handlers(service.handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with make_client(f"127.0.0.1:{port}") as client:
                for _ in range(200):
                    assert isinstance(client.predict("echo", ONE, deadline=30), Prediction)
                answers = client.predict_many("echo", (ONE for _ in range(1000)), deadline=30, unary=True)
                assert {type(answer) for answer in answers} == {Prediction}
        finally:
            server.stop(grace=None).wait()
