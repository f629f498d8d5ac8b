from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from predictd.server.cli.main import predictd
from predictd.server.cli.optimize import EXIT_NOT_GOOD
from tests.fixtures.nets import conv_net, write_inputs


def run(*arguments: str, standalone_mode: bool = True) -> Result:
    # Through the group: a command that is called by itself keeps its own idea of --help for good.
    return CliRunner().invoke(predictd, ["optimize", *arguments], standalone_mode=standalone_mode)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "what shall be done? --int8, --int8-dynamic, --fp16, --bf16, --prune 2:4, --ahead-of-time"),
        (["--int8"], "--int8 needs real inputs with --calibration; --int8-dynamic needs none"),
        (["--fp16", "--int8-dynamic"], "--int8-dynamic and --fp16 contradict each other"),
        (["--fp16", "--calibration", "."], "--calibration is for --int8; to compare outputs on real inputs"),
        (["--bf16"], "ONNX Runtime does not compute in BF16 on a CPU: --target tensorrt"),
        (["--int8-dynamic", "--target", "tensorrt"], "--int8-dynamic is for ONNX Runtime, not for"),
        (["--fp16", "--ahead-of-time", "--target", "tensorrt"], "--ahead-of-time is for ONNX Runtime"),
        (["--int8-dynamic", "--method", "minmax"], "--method is for --int8"),
        (["--fp16", "--reduce-range"], "--reduce-range is for --int8 and --int8-dynamic"),
        (
            ["--int8", "--calibration", ".", "--no-reduce-range", "--target", "tensorrt"],
            "--reduce-range is for ONNX Runtime, not for --target tensorrt",
        ),
        (["--ahead-of-time", "--exclude", "n"], "--exclude is for a precision and for --prune"),
        (["--ahead-of-time", "--no-external-data"], "--ahead-of-time puts weights into a file of their own"),
        (["--prune", "1:4"], "1:4"),
        (["--int8", "--calibration", ".", "--method", "distribution"], "'distribution' is not one of"),
        (["--fp16", "--for", "5"], "'5' has no unit"),
        (["--fp16", "--batch-sizes", "0"], "batch sizes are from 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.touch()
    result = run(str(model), "-o", str(tmp_path / "light.onnx"), *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


_COMMON = ("--for", "200ms", "--batch-sizes", "1")


def test_the_command_shows_the_result_and_says_where_it_is(tmp_path: Path) -> None:
    net = conv_net(tmp_path)
    inputs, report = write_inputs(tmp_path / "inputs", net), tmp_path / "report"
    light, cache = str(tmp_path / "light.onnx"), str(tmp_path / "cache")
    home = tmp_path / "home"
    home.mkdir()
    # A user's own setting must not turn on what is off for good.
    folders = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "predictd.server.cli.main", "optimize", str(net.path), "-o", light),
            *(
                "--int8",
                "--calibration",
                str(inputs),
                "--report",
                str(report),
                "--cache-dir",
                cache,
                *_COMMON,
            ),
        ],
        env={**os.environ, **folders, "ORT_DISABLE_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("good")
    assert all(head in done.stdout for head in ("| load time |", "| size ", "| scores |"))
    assert done.stderr.endswith(f"written: {light}\n")
    assert {each.name for each in report.iterdir()} == {f"comparison.{end}" for end in ("md", "json", "svg")}
    assert not [line for line in done.stderr.splitlines() if "WARNING" in line]
    # ONNX Runtime's uploader would keep a queue there.
    assert list(home.rglob("*")) == []


def test_what_is_not_good_enough_is_said_in_json_too_and_not_written(tmp_path: Path) -> None:
    pruned = tmp_path / "pruned.onnx"
    model = str(conv_net(tmp_path).path)
    arguments = (model, "-o", str(pruned), "--prune", "2:4", "--json", *_COMMON)
    done = run(*arguments, standalone_mode=False)
    assert done.return_value == EXIT_NOT_GOOD
    assert json.loads(done.stdout)["verdict"]["good"] is False
    assert done.stderr.endswith(
        f"not written, because it is not good enough: {pruned} (--keep writes it all the same)\n"
    )
    assert not pruned.exists()


def test_errors_are_one_line_that_names_the_file(tmp_path: Path) -> None:
    model = conv_net(tmp_path).path
    empty, wrong = tmp_path / "empty", tmp_path / "wrong"
    empty.mkdir()
    wrong.mkdir()
    np.savez(wrong / "a.npz", image=np.zeros((1, 3, 8, 8), np.float32))
    new = str(tmp_path / "new.onnx")
    for arguments, message in (
        (("-o", str(model), "--fp16"), f"{model}: is there already, and nothing is ever overwritten"),
        (("-o", new, "--int8", "--calibration", str(empty)), f"{empty}: no .npz or .npy file in it"),
        (
            ("-o", new, "--int8", "--calibration", str(wrong)),
            f"{wrong / 'a.npz'}: input 'image' is float32[1, 3, 8, 8]; the model takes FP32[-1, 3, 32, 32]",
        ),
        (("-o", new, "--fp16", "--exclude", "nobody"), "conv.onnx: no node has the name 'nobody'"),
    ):
        done = run(str(model), *arguments)
        assert done.exit_code == 1
        assert done.stderr.splitlines()[-1].startswith(f"Error: {message}")


def test_without_its_packages_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "predictd.server.optimize.optimizing", None)
    done = run(str(conv_net(tmp_path).path), "-o", str(tmp_path / "new.onnx"), "--fp16")
    assert done.exit_code == 1
    assert "(pip install 'predictd[optimize]')" in done.stderr
