"""`predictd load` and `predictd unload` against a service that remembers what it was asked."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from predictd.protos.v1 import control_pb2 as control
from predictd.server.cli.load import load
from predictd.server.cli.unload import unload
from tests.fixtures.prediction_service import FakeService, serving


def test_a_model_is_loaded_with_what_is_set() -> None:
    service = FakeService()
    with serving(service) as target:
        plain = CliRunner().invoke(load, ["m", "--grpc", target])
        tuned = CliRunner().invoke(load, ["m", "--grpc", target, "--set", '{"max_batch_size": 2}'])
        gone = CliRunner().invoke(unload, ["m", "--grpc", target, "--wait", "5s"])
    assert [(result.exit_code, result.stdout) for result in (plain, tuned, gone)] == [
        (0, "m is loaded\n"),
        (0, "m is loaded\n"),
        (0, "m is unloaded\n"),
    ]
    assert service.commands == [
        control.LoadModelRequest(model="m"),
        control.LoadModelRequest(model="m", config='{"max_batch_size": 2}'),
        control.UnloadModelRequest(model="m"),
    ]


def test_a_load_that_fails_says_why() -> None:
    with serving(FakeService()) as target:
        result = CliRunner().invoke(load, ["broken", "--grpc", target])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: version 1 of model 'broken' failed\n"


@pytest.mark.parametrize("command", [load, unload])
def test_without_a_daemon_it_says_how_to_start_one(command: object) -> None:
    result = CliRunner().invoke(command, ["m", "--grpc", "127.0.0.1:1"])  # type: ignore[arg-type]
    assert result.exit_code == 1
    assert "no daemon answers at 127.0.0.1:1" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "{"), "--set: not JSON"),
        (("--set", "[]"), "--set: give an object"),
        (("--wait", "5"), "has no unit"),
        (("--wait", "0s"), "it must be more than 0"),
    ],
)
def test_wrong_usage_asks_no_daemon(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(load, ["m", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
