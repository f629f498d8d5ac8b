"""The log of a daemon: requests, what engines print, crashes, and a level that changes while it runs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TypeAlias

import grpc
import numpy as np
import pytest

from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.v1 import predictd_pb2 as pb
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.faulty_engine import PRINT, PRINT_MUCH, PRINTED_LINES, SEGFAULT
from tests.fixtures.processes import FAULTY, custom

SECONDS = 30
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
METADATA = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"), ("x-request-id", "proxy-7\n".strip()))
PAYLOAD = 12345.678

Line = dict[str, object]
Call: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"


def lines(daemon: Daemon, **fields: object) -> list[Line]:
    """All lines with these fields."""
    found: list[Line] = [json.loads(line) for line in daemon.lines()]
    return [line for line in found if all(line.get(name) == value for name, value in fields.items())]


def first(daemon: Daemon, **fields: object) -> Line:
    daemon.wait_until(lambda: lines(daemon, **fields), SECONDS, f"logged {fields}")
    return lines(daemon, **fields)[0]


def predict(channel: grpc.Channel, value: float, model: str = "echo", request_id: str = "") -> None:
    x = pb.Tensor(name="x", dtype=pb.FP32, shape=(1, 1), data=np.float32(value).tobytes())
    request = pb.PredictRequest(model=model, inputs=[x], id=request_id)
    call: Call = channel.unary_unary("/predictd.v1.PredictionService/Predict")
    call(request.SerializeToString(), timeout=SECONDS, metadata=METADATA)


def log_settings(channel: grpc.Channel, **settings: bool) -> dict[str, bool | int | str]:
    request = oip.LogSettingsRequest()
    for name, value in settings.items():
        request.settings[name].bool_param = value
    call: Call = channel.unary_unary("/inference.GRPCInferenceService/LogSettings")
    answer = oip.LogSettingsResponse.FromString(call(request.SerializeToString(), timeout=SECONDS))
    return {
        name: getattr(one, str(one.WhichOneof("parameter_choice"))) for name, one in answer.settings.items()
    }


def test_what_stands_in_the_log(tmp_path: Path) -> None:
    model = custom(tmp_path, "echo", FAULTY)
    with (
        running(model, "--request-log", "1", folder=tmp_path / "run") as daemon,
        grpc.insecure_channel(daemon.grpc) as channel,
    ):
        requests_are_logged(daemon, channel)
        prints_are_labelled(daemon, channel)
        a_flood_is_bounded(daemon, channel)
        nobody_waits_for_a_supervisor_that_does_not_read(daemon, channel)
        the_level_changes(daemon, channel)
        a_crash_tells_where_it_was(daemon, channel)
        assert "Exception" not in daemon.output()


def requests_are_logged(daemon: Daemon, channel: grpc.Channel) -> None:
    predict(channel, PAYLOAD, request_id="mine")
    line = first(daemon, message="request", status="OK")
    assert (line["model"], line["version"], line["rows"], line["batch_rows"]) == ("echo", 1, 1, 1)
    assert (line["request_id"], line["x_request_id"], line["trace_id"]) == ("mine", "proxy-7", TRACE)
    assert (line["api"], line["role"]) == ("predictd.v1", "frontend 0")
    assert str(line["client"]).startswith("ipv4:127.0.0.1:")
    assert 0 < float(str(line["compute_seconds"])) < float(str(line["duration_seconds"])) < SECONDS
    assert str(PAYLOAD)[:5] not in daemon.output()
    with pytest.raises(grpc.RpcError):
        predict(channel, 1.0, model="nobody")
    line = first(daemon, message="request", status="NOT_FOUND")
    assert line["model"] == "nobody"


def prints_are_labelled(daemon: Daemon, channel: grpc.Channel) -> None:
    (pid,) = daemon.pids()
    predict(channel, PRINT)
    for text in ("printed by Python", "printed by C \x1b[31m", "printed to standard error"):
        line = first(daemon, logger="predictd.output", message=text)
        assert (line["role"], line["pid"], line["level"]) == ("worker echo 0", pid, "info")
    daemon.wait_until(lambda: "warned of by Python" in daemon.output(), SECONDS, "warned")
    (warned,) = lines(daemon, logger="py.warnings")
    assert (warned["role"], warned["level"]) == ("worker echo 0", "warning")


def a_flood_is_bounded(daemon: Daemon, channel: grpc.Channel) -> None:
    before = len(lines(daemon, logger="predictd.output"))
    predict(channel, PRINT_MUCH)
    predict(channel, PRINT)
    # What was printed after the flood comes last.
    daemon.wait_until(lambda: lines(daemon, logger="predictd.output")[before:], SECONDS, "labelled")
    assert len(lines(daemon, logger="predictd.output")) - before < PRINTED_LINES / 10


def nobody_waits_for_a_supervisor_that_does_not_read(daemon: Daemon, channel: grpc.Channel) -> None:
    daemon.signal(signal.SIGSTOP)
    try:
        predict(channel, PRINT_MUCH)
        predict(channel, 5.0)
    finally:
        daemon.signal(signal.SIGCONT)
    daemon.wait_until(lambda: daemon.get("/readyz")[0] == 200, SECONDS, "there again")


def the_level_changes(daemon: Daemon, channel: grpc.Channel) -> None:
    assert log_settings(channel) == {
        "log_file": "",
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "ISO8601",
    }
    daemon.signal(signal.SIGUSR1)
    for pid in daemon.children():
        os.kill(pid, signal.SIGUSR1)
    first(daemon, message="SIGUSR1 changes the log level from info to debug")
    daemon.wait_until(lambda: log_settings(channel)["log_verbose_level"] == 1, SECONDS, "debug in children")
    assert log_settings(channel, log_info=False)["log_info"] is False
    predict(channel, 6.0, request_id="unseen")
    assert log_settings(channel, log_info=True)["log_info"] is True
    predict(channel, 7.0, request_id="seen")
    first(daemon, message="request", request_id="seen")
    assert lines(daemon, message="request", request_id="unseen") == []
    with pytest.raises(grpc.RpcError) as refused:
        log_settings(channel, log_error=False)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def a_crash_tells_where_it_was(daemon: Daemon, channel: grpc.Channel) -> None:
    predict(channel, PRINT)
    with pytest.raises(grpc.RpcError):
        predict(channel, SEGFAULT)
    line = first(daemon, logger="predictd.output", level="error")
    assert (line["message"], line["role"]) == ("last words, killed by SIGSEGV", "worker echo 0")
    stack = str(line["stack"])
    assert stack.startswith("Fatal Python error: Segmentation fault")
    assert "faulty_engine.py" in stack
    assert str(line["last_output"]).endswith("printed to standard error")
