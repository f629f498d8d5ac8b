import subprocess
import sys
from pathlib import Path

import pytest

from predictd.engines.api import DType, EngineOptions, ModelLoadError, TensorSpec
from tests.fixtures import models

openvino_engine = pytest.importorskip("predictd.engines.openvino", reason="openvino is not installed")
load = openvino_engine.load


def load_error(path: Path, options: EngineOptions | None = None) -> str:
    """The one line that loading fails with, without the path that it begins with."""
    with pytest.raises(ModelLoadError) as caught:
        load(path, options or EngineOptions())
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_both_kinds_of_files_have_the_same_signature(tmp_path: Path) -> None:
    onnx = models.add_sub(tmp_path / "m.onnx")
    for path in (onnx, models.openvino_model(tmp_path / "m.xml", onnx)):
        engine = load(path, EngineOptions())
        shape = (-1, 16)
        assert engine.name == "openvino"
        assert engine.signature.inputs == tuple(
            TensorSpec(f"INPUT{at}", DType.INT32, shape) for at in range(2)
        )
        assert engine.signature.outputs == tuple(
            TensorSpec(f"OUTPUT{at}", DType.INT32, shape) for at in range(2)
        )
        assert engine.signature.batches


@pytest.mark.parametrize(
    ("write", "batches"),
    [
        (models.affine, True),
        (models.dynamic_dims, True),
        (models.pass_through, True),
        (models.fixed_batch, False),
        (models.scalar, False),
        (models.reduce_all, False),
    ],
)
def test_what_batches(write: models.Writer, batches: bool, tmp_path: Path) -> None:
    assert load(write(tmp_path / "m.onnx"), EngineOptions()).signature.batches is batches


def test_a_model_that_mixes_the_rows_does_not_batch(tmp_path: Path) -> None:
    path = models.save(
        tmp_path / "distances.onnx",
        [models.node("Transpose", "x", "columns", perm=[1, 0]), models.node("MatMul", "x columns", "y")],
        [models.tensor("x", DType.FP32, ("batch", 4))],
        [models.tensor("y", DType.FP32, ("batch", "batch"))],
    )
    signature = load(path, EngineOptions()).signature
    assert signature.outputs[0].shape == (-1, -1)
    assert not signature.batches


def test_tensors_without_a_name_are_called_like_their_operator(tmp_path: Path) -> None:
    path = models.openvino_model(tmp_path / "m.xml", models.affine(tmp_path / "m.onnx"))
    text = path.read_text()
    nameless = text.replace(' names="x"', "").replace(' names="y"', "").replace(' output_names="y"', "")
    assert nameless != text
    path.write_text(nameless)
    signature = load(path, EngineOptions()).signature
    assert signature.inputs[0].name == "x"
    assert signature.outputs[0].name in {"y/sink_port_0", "y"}


def test_an_input_with_a_default_is_a_constant(tmp_path: Path) -> None:
    signature = load(models.optional_input(tmp_path / "m.onnx"), EngineOptions()).signature
    assert [spec.name for spec in signature.inputs] == ["x"]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (
            models.unknown_operator,
            "Model wasn't fully converted. No conversion rule found for operations: Frobnicate-17",
        ),
        (models.float8_output, "output 'y' is of type f8e4m3, which is not served"),
        (models.string_identity, "input 'x' is of type string, which is not served"),
        (models.cast_to_text, "output 'y' is of type string, which is not served"),
        (models.unranked_input, "input 'x' declares no shape, so its dimensions are unknown"),
    ],
)
def test_what_is_not_served_is_refused_in_one_line(write: models.Writer, reason: str, tmp_path: Path) -> None:
    assert load_error(write(tmp_path / "m.onnx")) == reason


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.onnx", b"", "a model without outputs"),
        ("m.onnx", b"garbage", "Model can't be parsed"),
        ("m.xml", b"", "not an OpenVINO model"),
        ("m.xml", b"<?xml version='1.0'?>\n<project/>", "not an OpenVINO model"),
        (
            "m.xml",
            b"<net name='a' version='7'>",
            "an OpenVINO model of version 7, not 10 or 11: convert it again",
        ),
        ("m.xml", b"<net name='a' version='11'></net>", "a model without outputs"),
    ],
)
def test_broken_files_are_refused_and_nothing_is_printed(
    name: str, content: bytes, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert load_error(path) == reason
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert load_error(tmp_path / "m.xml") == "No such file or directory"
    assert load_error(tmp_path / "m.onnx") == "No such file or directory"


def test_weights_that_are_missing_or_cut_short(tmp_path: Path) -> None:
    path = models.openvino_model(tmp_path / "m.xml", models.mlp(tmp_path / "m.onnx"))
    weights = tmp_path / "m.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert load_error(path) == "Incorrect weights in bin file!"
    weights.unlink()
    assert load_error(path) == "no m.bin beside it: an OpenVINO model is two files"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (EngineOptions(device="gpu.7"), "OpenVINO has no device 'gpu.7' here; there is 'cpu'"),
        (EngineOptions(threads=0), "threads must be at least 1, not 0"),
        (
            EngineOptions(parameters={"streams": "2"}),
            "unknown parameter 'streams' of engine openvino; known: precision",
        ),
        (
            EngineOptions(parameters={"precision": "f64"}),
            "parameter 'precision' must be one of f32, bf16, f16, not 'f64'",
        ),
    ],
)
def test_options_that_cannot_be_had(options: EngineOptions, reason: str, tmp_path: Path) -> None:
    error = load_error(models.affine(tmp_path / "m.onnx"), options)
    # A machine may have more devices.
    assert error.startswith(reason)


def test_importing_it_reports_nothing(tmp_path: Path) -> None:
    """`openvino` tells the package that its wheel requires of every import, unless it is imported as here."""
    reports = tmp_path / "openvino_telemetry"
    reports.mkdir()
    (reports / "__init__.py").write_text(f"open({str(tmp_path / 'reported')!r}, 'w').close()\n")
    for module, reported in (("predictd.engines.openvino", False), ("openvino", True)):
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {module}; assert 'openvino' in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert reported or done.returncode == 0, done.stderr
        assert (tmp_path / "reported").exists() is reported
