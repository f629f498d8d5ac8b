"""`predictd label` and `predictd split`."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner, Result

from predictd.protos.v1 import predictd_pb2 as v1
from predictd.protos.v1 import routing_pb2 as routing
from predictd.server.cli.main import main, predictd
from tests.fixtures.prediction_service import FakeService, make_model, serving


def run(*arguments: str) -> tuple[Result, list[routing.SetLabelRequest | routing.SetSplitRequest]]:
    service = FakeService(make_model())
    with serving(service) as target:
        result = CliRunner().invoke(predictd, [*arguments, "--grpc", target])
    return result, service.changes


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (["label", "echo", "canary", "3"], routing.SetLabelRequest(model="echo", label="canary", version=3)),
        (
            ["label", "echo", "canary", "3", "--allow-unready"],
            routing.SetLabelRequest(model="echo", label="canary", version=3, allow_unready=True),
        ),
        (
            ["label", "echo", "canary", "--remove"],
            routing.SetLabelRequest(model="echo", label="canary", remove=True),
        ),
        (
            ["split", "echo", "3=90", "4=10%", "--allow-unready"],
            routing.SetSplitRequest(
                model="echo",
                shares=[v1.Share(version=3, percent=90), v1.Share(version=4, percent=10)],
                allow_unready=True,
            ),
        ),
        (["split", "echo", "--clear"], routing.SetSplitRequest(model="echo")),
    ],
)
def test_a_change_is_asked_for_and_nothing_is_said(
    arguments: list[str], change: routing.SetLabelRequest | routing.SetSplitRequest
) -> None:
    result, changes = run(*arguments)
    assert (result.exit_code, result.output, changes) == (0, "", [change])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "echo", "canary"], "give a VERSION, or --remove"),
        (["label", "echo", "canary", "3", "--remove"], "give a VERSION, or --remove"),
        (["label", "echo", "canary", "0"], "0 is not in the range x>=1"),
        (["split", "echo"], "give VERSION=PERCENT for each version, or --clear"),
        (["split", "echo", "3=100", "--clear"], "give VERSION=PERCENT for each version, or --clear"),
        (["split", "echo", "3:100"], "'3:100' is not VERSION=PERCENT, such as 3=90"),
        (["split", "echo", "0=100"], "'0=100' is not VERSION=PERCENT, such as 3=90"),
        (["split", "echo", "3=50", "3=50"], "version 3 is named twice"),
    ],
)
def test_wrong_usage_never_reaches_the_daemon(arguments: list[str], message: str) -> None:
    result, changes = run(*arguments)
    assert (result.exit_code, changes) == (2, [])
    assert message in result.stderr


def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(FakeService()) as target:
        monkeypatch.setattr(sys, "argv", ["predictd", "label", "m", "a", "1", "--grpc", target])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "predictd: model 'm' is not known\n"


@pytest.mark.parametrize("arguments", [["label", "m", "a", "1"], ["split", "m", "1=100"]])
def test_a_daemon_that_is_not_there_is_said_so(arguments: list[str]) -> None:
    result = CliRunner().invoke(predictd, [*arguments, "--grpc", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "no daemon answers at 127.0.0.1:1" in result.stderr
