from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result

from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.cli.models import models
from predictd.server.cli.predict import predict
from tests.fixtures.prediction_service import FAILED_MODEL, FakeService, make_model, serving

if TYPE_CHECKING:
    from pathlib import Path

    from click import Command

SPECS = (
    v1.TensorSpec(name="x", dtype=v1.FP32, shape=[-1, 3]),
    v1.TensorSpec(name="s", dtype=v1.BYTES, shape=[-1], optional=True),
)


def served(command: Command, *arguments: str, service: FakeService | None = None) -> Result:
    service = service or FakeService(make_model(inputs=SPECS, labels=("stable",)), FAILED_MODEL)
    with serving(service) as target:
        return CliRunner().invoke(command, [*arguments, "--grpc", target])


def complaint(result: Result) -> str:
    """The one line on stderr of a command that failed."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def test_inline_values_are_sent_in_the_dtype_of_the_model() -> None:
    service = FakeService(make_model(inputs=SPECS))
    result = served(predict, "echo", "--input", "x=[[1, 2, 3]]", "--input", 's=["a"]', service=service)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "echo version 3: queue 1.5 ms, compute 2 s, in a batch of 4",
        "x FP32 [1, 3]",
        "  [[1., 2., 3.]]",
        "s BYTES [1]",
        "  [b'a']",
    ]
    (request,) = service.requests
    assert request.inputs[0].dtype == v1.FP32


def test_an_answer_can_be_had_as_json() -> None:
    result = served(predict, "echo", "--input", "x=[[1, 2, 3]]", "--json")
    assert json.loads(result.stdout)["outputs"] == [
        {"name": "x", "dtype": "FP32", "shape": [1, 3], "data": [[1.0, 2.0, 3.0]]}
    ]


def test_files_versions_and_outputs_reach_the_daemon(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    service = FakeService(make_model(inputs=SPECS, labels=("stable",)))
    given = ("echo", "--input", f"x=@{tmp_path}/x.npy")
    assert served(predict, *given, "--version", "3", "--output", "x", service=service).exit_code == 0
    assert served(predict, *given, "--label", "stable", service=service).exit_code == 0
    by_version, by_label = service.requests
    assert (by_version.version, list(by_version.outputs)) == (3, ["x"])
    assert list(by_version.inputs[0].shape) == [2, 3]
    assert (by_label.label, by_label.WhichOneof("version_choice")) == ("stable", "label")


def test_the_address_may_stand_in_the_environment() -> None:
    with serving(FakeService(make_model())) as target:
        result = CliRunner().invoke(models, [], env={"PREDICTD_GRPC": target})
    assert result.exit_code == 0, result.output
    assert "echo" in result.stdout


def test_outputs_are_saved_under_their_names(tmp_path: Path) -> None:
    specs = (
        v1.TensorSpec(name="a/b:0", dtype=v1.FP32, shape=[-1]),
        v1.TensorSpec(name="s", dtype=v1.BYTES, shape=[-1]),
    )
    result = served(
        predict,
        *("echo", "--input", "a/b:0=[1, 2]", "--input", 's=["a", "bcd"]', "--save", f"{tmp_path}/new/out"),
        service=FakeService(make_model(inputs=specs)),
    )
    assert result.exit_code == 0, result.output
    assert np.load(tmp_path / "new/out/a_b_0.npy").tolist() == [1.0, 2.0]
    assert np.load(tmp_path / "new/out/s.npy").tolist() == [b"a", b"bcd"]


def test_what_cannot_be_saved_without_loss_is_not(tmp_path: Path) -> None:
    result = served(
        predict, "echo", "--input", "x=[[1, 2, 3]]", "--input", r's=["a\u0000"]', "--save", str(tmp_path)
    )
    assert "output 's' has strings that end in NUL" in complaint(result)


def test_outputs_that_would_share_a_file_are_not_saved(tmp_path: Path) -> None:
    specs = tuple(v1.TensorSpec(name=name, dtype=v1.FP32, shape=[-1]) for name in ("a:0", "a/0"))
    given = ("echo", "--input", "a:0=[1]", "--input", "a/0=[1]", "--save", str(tmp_path))
    result = served(predict, *given, service=FakeService(make_model(inputs=specs)))
    assert "--output" in complaint(result)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = served(predict, "echo", "--input", "x=[[1, 2, 3]]", "--save", f"{tmp_path}/file/out")
    assert complaint(result) == f"{tmp_path}/file/out: Not a directory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "--input", "x=1"), "no model 'nothing'"),
        (("echo", "--input", "x"), "--input x: write NAME=VALUE"),
        (("echo", "--input", "x=1", "--input", "x=2"), "input 'x' is given twice"),
        (
            ("echo", "--input", "y=1"),
            "the model has no input 'y'; it takes x FP32 [?, 3], s BYTES [?] optional",
        ),
        (("echo", "--input", 'x="a"'), "input 'x': the model takes FP32, which these values are not"),
        (
            ("echo", "--input", "x=1", "--version", "3", "--label", "stable"),
            "--version and --label exclude each other",
        ),
        (
            ("echo", "--input", "x=1", "--version", "9"),
            "model 'echo' has no version 9; there are: version 3 (stable) READY",
        ),
        (
            ("echo", "--input", "x=1", "--label", "beta"),
            "model 'echo' has no label 'beta'; there are: version 3 (stable) READY",
        ),
        (
            ("broken", "--input", "x=1"),
            (
                "model 'broken' has no version that is ready; "
                "there are: version 1 FAILED: model.onnx: not a model"
            ),
        ),
        (
            ("broken", "--input", "x=1", "--version", "1"),
            "model 'broken' cannot answer: version 1 FAILED: model.onnx: not a model",
        ),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert complaint(served(predict, *arguments)) == message


def test_an_array_of_another_dtype_than_any_is_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3, complex))
    assert "input 'x': dtype complex128" in complaint(
        served(predict, "echo", "--input", f"x=@{tmp_path}/x.npy")
    )


def test_what_the_daemon_refuses_is_one_line() -> None:
    service = FakeService(make_model("fail-INVALID_ARGUMENT"))
    assert complaint(served(predict, "fail-INVALID_ARGUMENT", "--input", "x=[]", service=service)) == "no:"


@pytest.mark.parametrize("arguments", [["models"], ["predict", "echo", "--input", "x=1"]])
def test_without_a_daemon_one_line_says_where_and_how_to_start_one(arguments: list[str]) -> None:
    with serving(FakeService()) as target:
        pass
    command = {"models": models, "predict": predict}[arguments[0]]
    line = complaint(CliRunner().invoke(command, [*arguments[1:], "--grpc", target]))
    assert line.startswith(f"no daemon answers at {target} (")
    assert line.endswith("start one with: predictd serve MODEL.onnx")


def test_models_are_listed() -> None:
    lines = served(models).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "echo", "broken"]
    assert "model.onnx: not a model" in lines[2]


def test_models_are_listed_as_json() -> None:
    assert [model["name"] for model in json.loads(served(models, "--json").stdout)] == ["echo", "broken"]
