"""`predictd health`, against a server that answers as the test says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from predictd.server.cli.main import predictd

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(name="target")
def _target() -> Iterator[str]:
    servicer = health.HealthServicer()
    servicer.set("", SERVING)
    servicer.set("b", NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 0, "SERVING\n"),
        (["b"], 1, "Error: model 'b' of the daemon at {} is NOT_SERVING\n"),
        (["c"], 1, "Error: model 'c' of the daemon at {}: NOT_FOUND"),
    ],
)
def test_the_exit_status_is_the_answer(arguments: list[str], status: int, said: str, target: str) -> None:
    result = CliRunner().invoke(predictd, ["health", *arguments, "--grpc", target])
    assert result.exit_code == status
    assert result.output.startswith(said.format(target))


def test_a_daemon_that_is_not_there_is_one_line() -> None:
    result = CliRunner().invoke(predictd, ["health", "--grpc", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: the daemon at 127.0.0.1:1: UNAVAILABLE")
    assert result.output.count("\n") == 1
