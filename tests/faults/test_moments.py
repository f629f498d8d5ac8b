"""Deaths at the worst moment, each brought about on purpose."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client, OverloadedError, Prediction, Request, UnavailableError
from predictd.client.channel import PREDICT
from predictd.client.messages import build
from predictd.engines.api import Array
from predictd.protos.v1.predictd_pb2 import PredictResponse
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.faulty_engine import BLOCK
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.killing import leaders, serving
from tests.fixtures.pausing import paused, unread_messages, unread_records
from tests.fixtures.processes import FAULTY, GATED, custom

Ask = Callable[..., "Future[Prediction]"]
WIDTH = 250_000
RECORD_BYTES = 64
# How long a busy machine may take for any step of the daemon.
LOOK_SECONDS = 60.0


def echo(value: float, width: int = 1) -> Array:
    return np.full((1, width), value, np.float32)


# These tests stop children for longer than a hanging one is given.
patient = partial(running, environment={"PREDICTD_HANG_TIMEOUT": "1h"})


@contextmanager
def asking(daemon: Daemon, *, deadline: float = 90) -> Iterator[Ask]:
    """Requests from threads of their own: called with a model and its `x`."""
    with Client(daemon.grpc, deadline=deadline, retries=NO_RETRIES) as client, ThreadPoolExecutor(16) as pool:

        def ask(model: str, x: Array, priority: int = 0) -> Future[Prediction]:
            return pool.submit(client.predict, model, {"x": x}, priority=priority)

        yield ask


def wait_queued(daemon: Daemon, tickets: int) -> None:
    daemon.wait_until(
        lambda: daemon.metric("predictd_queue_depth") == tickets, LOOK_SECONDS, f"at {tickets} queued tickets"
    )


def wait_in_flight(daemon: Daemon, requests: int) -> None:
    daemon.wait_until(
        lambda: daemon.metric("predictd_in_flight") == requests,
        LOOK_SECONDS,
        f"at {requests} requests in flight",
    )


def wait_died(daemon: Daemon, pid: int) -> None:
    daemon.wait_until(lambda: f"(pid {pid}) died" in daemon.output(), LOOK_SECONDS, "aware of the death")


def wait_successor(daemon: Daemon, role: str, pid: int) -> int:
    """Kill a process, and return the one that comes in its place as soon as that runs a program of its own.

    Not sooner: the supervisor waits for a child between fork and exec.
    """
    others = set(daemon.pids()) | set(daemon.pids("front ends"))
    found: list[int] = []

    def started() -> bool:
        children = set(daemon.children())
        found.extend(pid for pid in children - others if b"predictd.server." in _command(pid))
        return bool(found)

    os.kill(pid, signal.SIGKILL)
    daemon.wait_until(started, LOOK_SECONDS, f"starting another of its {role}")
    return found[0]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_answers_of_a_dead_worker_are_taken_before_its_other_tickets_are_put_back(tmp_path: Path) -> None:
    """The front end sees an answer, the death and a closed release pipe in one turn, the death first."""
    gates = tmp_path / "gates"
    gates.mkdir()
    model = custom(tmp_path, "held", GATED, run_gates=gates)
    with patient(model, folder=tmp_path / "run") as daemon, asking(daemon) as ask:
        (worker,), (frontend,) = daemon.pids("workers"), daemon.pids("front ends")
        first = ask("held", echo(-1))
        wait_in_flight(daemon, 1)
        wait_queued(daemon, 0)
        second = ask("held", echo(-2))
        wait_queued(daemon, 1)
        with paused(frontend):
            # A scrape asks the front end for its counts: its control channel is readable before its pipe is.
            daemon.get("/metrics")
            (gates / "1").touch()
            daemon.wait_until(lambda: unread_records(frontend) > 0, LOOK_SECONDS, "done with the first")
            wait_queued(daemon, 0)
            os.kill(worker, signal.SIGKILL)
            wait_died(daemon, worker)
        (gates / "2").touch()
        assert first.result().outputs["y"] == -1
        assert second.result().outputs["y"] == -2
        daemon.wait_metric("predictd_retries_total", 1)
        assert "Traceback" not in daemon.output()


@pytest.mark.parametrize("instances", [1, 2])
def test_tickets_that_were_read_and_not_claimed_are_found_again(tmp_path: Path, instances: int) -> None:
    """A leader that lingers for more has tickets in hand that stand nowhere else."""
    model = custom(tmp_path, "echo", FAULTY)
    arguments = (model, "--max-delay", "1m", "--max-batch-size", "5", "--instances", str(instances))
    with patient(*arguments, folder=tmp_path / "run") as daemon, asking(daemon) as ask:
        daemon.wait_until(lambda: serving(daemon, "echo") == instances, LOOK_SECONDS, "complete")
        answers = [ask("echo", echo(value), priority) for priority, value in enumerate([1.0, 2.0, 3.0, 4.0])]
        wait_in_flight(daemon, 4)
        wait_queued(daemon, 0)
        (leader,) = leaders(daemon.pids("workers"))
        os.kill(leader, signal.SIGKILL)
        daemon.wait_metric("predictd_retries_total", 4)
        # The batch is full: the next leader waits for nothing more.
        answers.append(ask("echo", echo(5.0)))
        assert [float(answer.result().outputs["y"][0, 0]) for answer in answers] == [1.0, 2.0, 3.0, 4.0, 5.0]
        daemon.wait_metric("predictd_retries_total", 4)


def test_tickets_in_the_carry_outlive_the_worker_that_put_them_there(tmp_path: Path) -> None:
    """Two models share a worker; it runs a request of one while that of the other is in the carry."""
    repository, gate = tmp_path / "models", tmp_path / "gate"
    for name in ("slow", "quick"):
        file = custom(repository, name, GATED, run_gate=gate) / "model.toml"
        file.write_text('pool = "both"\n' + file.read_text())
    with patient(repository, folder=tmp_path / "run") as daemon, asking(daemon) as ask:
        (worker,) = daemon.pids("workers")
        # From here on there is memory for requests; growing would wait for the worker.
        assert ask("slow", echo(0.0)).result().outputs["y"] == 0
        with paused(worker):
            answers = [ask("slow", echo(HOLD), 1)]
            wait_queued(daemon, 1)
            answers += [ask("quick", echo(HOLD + value), 2) for value in range(1, 6)]
            wait_queued(daemon, 6)
        wait_queued(daemon, 0)
        # What the worker may still read is now what it has put into the carry itself.
        daemon.wait_until(
            lambda: unread_records(worker) >= 5 * RECORD_BYTES, LOOK_SECONDS, "carrying five tickets"
        )
        os.kill(worker, signal.SIGKILL)
        gate.touch()
        assert [float(a.result().outputs["y"][0, 0]) for a in answers] == [HOLD + at for at in range(6)]
        # Those in the carry were not touched by the death.
        daemon.wait_metric("predictd_retries_total", 1, model="slow")
        assert daemon.metric("predictd_retries_total", model="quick") == 0


def test_a_client_that_left_before_its_worker_died_leaves_nothing_behind(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY, block_seconds=30)
    with patient(model, folder=tmp_path / "run") as daemon:
        (worker,) = daemon.pids("workers")
        with grpc.insecure_channel(daemon.grpc) as channel:
            answers = [send(channel, BLOCK, "echo") for _ in range(5)]
            wait_in_flight(daemon, 5)
            for answer in answers:
                answer.cancel()
            daemon.wait_metric("predictd_requests_total", 5, status="CANCELLED")
        assert daemon.metric("predictd_in_flight") > 0
        os.kill(worker, signal.SIGKILL)
        wait_in_flight(daemon, 0)
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert client.predict("echo", {"x": echo(1.0)}).outputs["y"] == 1
        wait_in_flight(daemon, 0)
        daemon.wait_metric("predictd_worker_restarts_total", 1)


def rows_run(log: Path) -> list[str]:
    """Those of requests; warm-up runs zeros."""
    return [row for row in log.read_text().split() if row != "0"]


def send(channel: grpc.Channel, value: float, model: str = "held") -> Any:
    """A request that can be cancelled."""
    request = build(Request(model=model, inputs={"x": echo(value)}))
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
    return call.future(request.SerializeToString(), timeout=60)


def test_requests_cancelled_in_the_queue_never_run_and_one_cancelled_in_its_run_holds_nobody_up(
    tmp_path: Path,
) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    model = custom(tmp_path, "held", GATED, run_gate=gate, run_log=log)
    with (
        patient(model, "--max-batch-size", "1", folder=tmp_path / "run") as daemon,
        grpc.insecure_channel(daemon.grpc) as channel,
    ):
        running_one = send(channel, HOLD)
        daemon.wait_until(lambda: rows_run(log), LOOK_SECONDS, "running")
        queued = [send(channel, value) for value in (2, 3, 4)]
        wait_queued(daemon, 3)
        for given_up in (running_one, queued[0], queued[2]):
            given_up.cancel()
        daemon.wait_until(
            lambda: daemon.metric("predictd_requests_total", status="CANCELLED") == 3,
            LOOK_SECONDS,
            "told of it",
        )
        gate.touch()
        assert PredictResponse.FromString(queued[1].result()).outputs[0].data == echo(3).tobytes()
        wait_in_flight(daemon, 0)
        assert rows_run(log) == ["1", "3"]
        daemon.wait_metric("predictd_dropped_total", 2, reason="cancelled")
        for counter in ("predictd_accepted_total", "predictd_requests_total"):
            daemon.wait_metric(counter, 4)


def test_what_a_dead_front_end_had_in_a_queue_never_runs_and_what_it_had_in_a_run_holds_nobody_up(
    tmp_path: Path,
) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    model = custom(tmp_path, "held", GATED, run_gate=gate, run_log=log)
    arguments = (model, "--max-batch-size", "1", "--frontends", "1")
    with patient(*arguments, folder=tmp_path / "run") as daemon:
        (frontend,) = daemon.pids("front ends")
        with grpc.insecure_channel(daemon.grpc) as channel:
            lost = [send(channel, HOLD)]
            daemon.wait_until(lambda: rows_run(log), LOOK_SECONDS, "running")
            lost += [send(channel, value) for value in (2, 3, 4)]
            wait_queued(daemon, 3)
            # What was not collected of a child's counts goes with it.
            daemon.wait_until(lambda: daemon.metric("predictd_accepted_total") == 4, LOOK_SECONDS, "counted")
            os.kill(frontend, signal.SIGKILL)
            assert {one.code() for one in lost} == {grpc.StatusCode.UNAVAILABLE}
        # Until the supervisor has heard of it, it says that all is as before.
        wait_died(daemon, frontend)
        daemon.wait_until(lambda: daemon.get("/readyz")[0] == 200, LOOK_SECONDS, "ready again")
        with asking(daemon) as ask:
            answer = ask("held", echo(5))
            wait_in_flight(daemon, 1)
            gate.touch()
            assert answer.result().outputs["y"] == 5
        wait_in_flight(daemon, 0)
        wait_queued(daemon, 0)
        assert rows_run(log) == ["1", "5"]
        for counter in ("predictd_accepted_total", "predictd_requests_total"):
            daemon.wait_metric(counter, 5)
        assert "Traceback" not in daemon.output()


def test_a_front_end_that_dies_waiting_for_memory_gives_its_claim_up(tmp_path: Path) -> None:
    """The supervisor hears the request for memory after the one who asked is dead."""
    model = models.identity(tmp_path / "wide.onnx", shape=("batch", WIDTH))
    arguments = (model, "--arena-limit", "3MiB", "--max-batch-size", "1")
    with patient(*arguments, folder=tmp_path / "run") as daemon:
        (frontend,) = daemon.pids("front ends")
        for _ in range(4):
            # A client that was there before may wait a little until it connects again.
            with asking(daemon, deadline=30) as ask, paused(daemon.process.pid):
                lost = ask("wide", echo(1.0, WIDTH))
                daemon.wait_until(
                    lambda: unread_messages(daemon.process.pid) > 0, LOOK_SECONDS, "asked for memory"
                )
                os.kill(frontend, signal.SIGKILL)
                assert isinstance(lost.exception(), UnavailableError)
            wait_died(daemon, frontend)
            daemon.wait_until(lambda: daemon.get("/readyz")[0] == 200, LOOK_SECONDS, "ready")
            (frontend,) = daemon.pids("front ends")
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert (client.predict("wide", {"x": echo(2.0, WIDTH)}).outputs["y"] == 2).all()


def test_a_worker_that_dies_waiting_for_memory_gives_its_claim_up(tmp_path: Path) -> None:
    """The size of its answers is known after the run only, so it asks for memory then."""
    model = models.identity(tmp_path / "wide.onnx", shape=("batch", "width"))
    arguments = (model, "--arena-limit", "4MiB", "--instances", "1")
    with patient(*arguments, folder=tmp_path / "run") as daemon, asking(daemon) as ask:
        # From here on the front end has its memory.
        assert (ask("wide", echo(1.0, WIDTH)).result().outputs["y"] == 1).all()
        os.kill(daemon.pids("workers")[0], signal.SIGKILL)
        for turn in range(4):
            assert ask("wide", echo(1.0, 2)).result().outputs["y"].sum() == 2
            (worker,) = daemon.pids("workers")
            with paused(daemon.process.pid):
                answer = ask("wide", echo(float(turn), WIDTH))
                daemon.wait_until(
                    lambda: unread_messages(daemon.process.pid) > 0, LOOK_SECONDS, "asked for memory"
                )
                os.kill(worker, signal.SIGKILL)
            assert (answer.result().outputs["y"] == turn).all()
            assert ask("wide", echo(1.0, 2)).result().outputs["y"].sum() == 2
            os.kill(daemon.pids("workers")[0], signal.SIGKILL)


def test_a_front_end_dies_while_a_worker_starts(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    with patient(model, folder=tmp_path / "run") as daemon:
        (worker,), (frontend,) = daemon.pids("workers"), daemon.pids("front ends")
        successor = wait_successor(daemon, "workers", worker)
        with paused(successor):
            wait_successor(daemon, "front ends", frontend)
            daemon.wait_until(lambda: daemon.metric("predictd_ready") == 1, LOOK_SECONDS, "ready")
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert client.predict("echo", {"x": echo(1.0)}).outputs["y"] == 1


def test_a_worker_dies_while_a_front_end_starts(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    with patient(model, folder=tmp_path / "run") as daemon:
        (worker,), (frontend,) = daemon.pids("workers"), daemon.pids("front ends")
        successor = wait_successor(daemon, "front ends", frontend)
        with paused(successor):
            wait_successor(daemon, "workers", worker)
            daemon.wait_until(lambda: serving(daemon, "echo") == 1, LOOK_SECONDS, "serving again")
        daemon.wait_until(lambda: daemon.metric("predictd_ready") == 1, LOOK_SECONDS, "ready")
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert client.predict("echo", {"x": echo(1.0)}).outputs["y"] == 1
        assert "Traceback" not in daemon.output()


@pytest.mark.parametrize("role", ["workers", "front ends"])
def test_the_daemon_is_told_to_leave_while_a_child_starts(tmp_path: Path, role: str) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    with patient(model, "--frontends", "2", "--instances", "2", folder=tmp_path / "run") as daemon:
        daemon.wait_until(lambda: serving(daemon, "echo") == 2, LOOK_SECONDS, "complete")
        successor = wait_successor(daemon, role, daemon.pids(role)[0])
        with paused(successor):
            assert daemon.stop() == 0
        assert "Traceback" not in daemon.output()


def test_memory_that_ran_out_while_a_worker_was_away_does_not_fail_its_model(tmp_path: Path) -> None:
    """Requests that waited for the worker took the memory that it had its answers in."""
    model = models.identity(tmp_path / "wide.onnx", shape=("batch", WIDTH))
    arguments = (model, "--arena-limit", "4MiB", "--max-batch-size", "1")
    with patient(*arguments, folder=tmp_path / "run") as daemon, asking(daemon) as ask:
        (worker,) = daemon.pids("workers")
        successor = wait_successor(daemon, "workers", worker)
        with paused(successor):
            wait_died(daemon, worker)
            answers = [ask("wide", echo(float(value), WIDTH)) for value in range(4)]
            wait_in_flight(daemon, 3)
        values = [float(a.result().outputs["y"][0, 0]) for a in answers if a.exception() is None]
        assert len(values) == 3
        assert [type(a.exception()) for a in answers if a.exception()] == [OverloadedError]
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert client.model("wide").versions[0].state == "READY"
            assert (client.predict("wide", {"x": echo(9.0, WIDTH)}).outputs["y"] == 9).all()
