"""Priorities, time-outs, limits and preferred sizes of a model that is busy, whichever file asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client, DeadlineExceededError, OverloadedError
from predictd.protos.oip import grpc_service_pb2 as pb
from tests.fixtures.daemon import Daemon
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.processes import GATED, serving

SECONDS = 30.0
# 1 is like any other; 2 refuses after a while; 3 delays; 4 is the default; of 5, two may wait.
MODEL_TOML = """
max_batch_size = 8
preferred_batch_sizes = [2, 4]
priority_levels = 5
default_priority = 4
[priority_queues]
2 = {default_timeout = "150ms", allow_timeout_override = true}
3 = {default_timeout = "100ms", timeout_action = "delay"}
5 = {max_queue_size = 2}
"""
CONFIG_PBTXT = """
max_batch_size: 8
dynamic_batching {
  preferred_batch_size: [ 2, 4 ]
  priority_levels: 5
  default_priority_level: 4
  priority_queue_policy {
    key: 2
    value { default_timeout_microseconds: 150000 allow_timeout_override: true }
  }
  priority_queue_policy { key: 3 value { default_timeout_microseconds: 100000 timeout_action: DELAY } }
  priority_queue_policy { key: 5 value { max_queue_size: 2 } }
}
"""


@dataclass(frozen=True, slots=True)
class Busy:
    """A model whose one worker is held by a request until the gate is opened."""

    daemon: Daemon
    client: Client
    threads: ThreadPoolExecutor
    gate: Path
    log: Path

    def ask(self, number: float, priority: int = 0) -> Future[Any]:
        """Send a row with a number to know it by."""
        x = np.full((1, 1), number, np.float32)
        return self.threads.submit(
            self.client.predict, "gated", {"x": x}, priority=priority, deadline=2 * SECONDS
        )

    def queue(self, number: float, priority: int = 0) -> Future[Any]:
        """The same, and wait until it stands in its queue."""
        level = str(priority or 4)
        before = self.depth(level)
        answer = self.ask(number, priority)
        self.daemon.wait_until(lambda: self.depth(level) == before + 1, SECONDS, f"queued: {number}")
        return answer

    def depth(self, priority: str) -> float:
        return self.daemon.metric("predictd_queue_depth", pool="gated", priority=priority)

    def runs(self) -> list[list[int]]:
        """The numbers of each run since warm-up."""
        lines = [[int(number) for number in line.split()] for line in self.log.read_text().splitlines()]
        return [line for line in lines if any(line)]

    def hold(self) -> Future[Any]:
        answer = self.ask(HOLD)
        self.daemon.wait_until(lambda: self.runs() == [[HOLD]], SECONDS, "held")
        return answer


@contextmanager
def busy(folder: Path, files: dict[str, str]) -> Iterator[Busy]:
    model, gate, log = folder / "models" / "gated", folder / "gate", folder / "runs"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.onnx").touch()
    for name, text in files.items():
        settings = f'engine = "{GATED}"\n{{}}\n[parameters]\nrun_gate = "{gate}"\nrun_log = "{log}"\n'
        (model / name).write_text(settings.format(text) if name == "model.toml" else text)
    options = ("--frontends", "1", "--instances", "1")
    with (
        serving(model, *options, folder=folder / "run") as daemon,
        ThreadPoolExecutor(32) as threads,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        try:
            yield Busy(daemon, client, threads, gate, log)
        finally:
            gate.touch()


def infer(daemon: Daemon, priority: int, timeout_us: int) -> None:
    """A request with a time-out of its own, as Triton's clients send it. Raises grpc.RpcError."""
    request = pb.ModelInferRequest(
        model_name="gated",
        inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 1])],
        raw_input_contents=[np.full((1, 1), 22, np.float32).tobytes()],
    )
    request.parameters["priority"].int64_param = priority
    request.parameters["timeout"].int64_param = timeout_us
    with grpc.insecure_channel(daemon.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        call(request, timeout=SECONDS)


FILES = {
    "model.toml": {"model.toml": MODEL_TOML},
    "config.pbtxt": {"config.pbtxt": CONFIG_PBTXT, "model.toml": ""},
}


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_what_a_busy_model_does_with_those_who_wait(files: dict[str, str], tmp_path: Path) -> None:
    with busy(tmp_path, files) as model:
        answers: dict[float, Future[Any]] = {HOLD: model.hold()}
        for number, priority in ((51, 5), (52, 5)):
            answers[number] = model.queue(number, priority)
        with pytest.raises(OverloadedError, match=r"queue of model 'gated' is full \(max_queue_size\)"):
            model.ask(53, 5).result(SECONDS)
        answers[31] = model.queue(31, 3)
        for number in (41, 42, 43):
            answers[number] = model.queue(number)
        # While the worker is busy; and by then the delayed one has waited long enough, too.
        with pytest.raises(DeadlineExceededError, match="waited longer than 150ms in its queue"):
            model.ask(21, 2).result(SECONDS)
        with pytest.raises(grpc.RpcError, match="waited longer than 1ms in its queue") as refusal:
            infer(model.daemon, priority=2, timeout_us=1000)
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for number in (11, 12):
            answers[number] = model.queue(number, 1)
        model.gate.touch()
        for value, answer in answers.items():
            assert answer.result(SECONDS).outputs["y"].tolist() == [[value]]
        held, first, *rest = model.runs()
        assert (held, first) == ([HOLD], [11, 12, 41, 42])
        # The delayed one is behind all others, perhaps in one batch with the last of them.
        assert [number for run in rest for number in run] == [43, 51, 52, 31]
        assert {len(run) for run in rest} <= {1, 2, 4}
        # Two were refused for their wait, none was for being delayed.
        dropped = model.daemon.metric("predictd_dropped_total", model="gated", reason="expired")
        assert dropped == 2
