import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from predictd.engines.api import DType, EngineOptions, LoadEngine
from predictd.engines.onnxruntime import load, session
from predictd.engines.onnxruntime.unranked import unranked_inputs
from tests.fixtures import models
from tests.unit.engines.shared import refusal


def reason(path: Path, options: EngineOptions | None = None) -> str:
    """Why a file is refused."""
    message = refusal(load, path, options or EngineOptions())
    assert "onnxruntime_src" not in message
    return message


def test_it_is_an_engine_loader(tmp_path: Path) -> None:
    loader: LoadEngine = load
    engine = loader(models.affine(tmp_path / "m.onnx"), EngineOptions())
    assert engine.name == "onnxruntime"
    engine.close()


def test_missing_file(tmp_path: Path) -> None:
    assert reason(tmp_path / "m.onnx") == "No such file or directory"


def test_folder(tmp_path: Path) -> None:
    assert reason(tmp_path) == "Is a directory"


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.touch()
    assert reason(path) == "No graph was found in the protobuf"


def test_file_that_is_not_onnx(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not a model" * 100)
    assert reason(path) == "Protobuf parsing failed"


def test_truncated_file(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    assert reason(path) == "Protobuf parsing failed"


def test_unknown_operator(tmp_path: Path) -> None:
    assert "No Op registered for Frobnicate" in reason(models.unknown_operator(tmp_path / "m.onnx"))


def identity_of(path: Path, opset: int = 17, ir_version: int = 8) -> Path:
    x, y = (models.tensor(name, DType.FP32, ("batch", 4)) for name in "xy")
    nodes = [models.node("Identity", "x", "y")]
    return models.save(path, nodes, [x], [y], opset=opset, ir_version=ir_version)


def test_newer_opset(tmp_path: Path) -> None:
    message = reason(identity_of(tmp_path / "m.onnx", opset=99))
    assert message.startswith("ONNX Runtime only *guarantees* support for models stamped with official")
    assert "Opset 99" in message


def test_newer_ir_version(tmp_path: Path) -> None:
    message = reason(identity_of(tmp_path / "m.onnx", ir_version=99))
    assert message.startswith("Unsupported model IR version: 99")


def test_missing_external_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = onnx.load(models.mlp(path))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    assert "weights.bin" in reason(path)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (
            {"graph_optimisation": "all"},
            (
                "unknown parameter 'graph_optimisation' of engine onnxruntime; "
                "known: graph_optimization_level, enable_cpu_mem_arena, share_weights, execution_provider"
            ),
        ),
        (
            {"graph_optimization_level": "99"},
            "parameter 'graph_optimization_level' must be one of disabled, basic, extended, all, not '99'",
        ),
        (
            {"enable_cpu_mem_arena": "1"},
            "parameter 'enable_cpu_mem_arena' must be one of true, false, not '1'",
        ),
    ],
)
def test_parameters_are_never_ignored(parameters: dict[str, str], expected: str, tmp_path: Path) -> None:
    model = models.affine(tmp_path / "m.onnx")
    assert reason(model, EngineOptions(parameters=parameters)) == expected


def test_threads_are_never_left_to_the_runtime(tmp_path: Path) -> None:
    model = models.affine(tmp_path / "m.onnx")
    assert reason(model, EngineOptions(threads=0)) == "threads must be at least 1, not 0"


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
@pytest.mark.parametrize("arena", ["true", "false"])
def test_parameters_reach_the_session(level: str, arena: str, tmp_path: Path) -> None:
    parameters = {"graph_optimization_level": level, "enable_cpu_mem_arena": arena}
    settings = session.session_options(EngineOptions(parameters=parameters))
    assert settings.graph_optimization_level == session._LEVELS[level]
    assert settings.enable_cpu_mem_arena is (arena == "true")
    engine = load(models.affine(tmp_path / "m.onnx"), EngineOptions(parameters=parameters))
    assert (engine.run([np.ones((1, 4), np.float32)])[0] == 3).all()


def entry(settings: Any, key: str) -> str | None:
    try:
        value: str = settings.get_session_config_entry(key)
    except RuntimeError:
        return None
    return value


@pytest.mark.parametrize(
    ("options", "spinning", "stop"),
    [
        (EngineOptions(threads=1, spin=False), "0", None),
        (EngineOptions(threads=4, spin=False), "0", None),
        (EngineOptions(threads=1, spin=True), None, None),
        (EngineOptions(threads=4, spin=True), None, "1"),
    ],
)
def test_threads_spin_only_on_cores_of_their_own(
    options: EngineOptions, spinning: str | None, stop: str | None
) -> None:
    settings = session.session_options(options)
    assert settings.intra_op_num_threads == options.threads
    assert settings.inter_op_num_threads == 1
    assert entry(settings, "session.intra_op.allow_spinning") == spinning
    assert entry(settings, "session.force_spinning_stop") == stop


COUNT_THREADS = """
import os, sys
from pathlib import Path
import numpy as np
from predictd.engines.api import EngineOptions
from predictd.engines.onnxruntime import load
def threads(): return len(os.listdir("/proc/self/task"))
before = threads()
engine = load(Path(sys.argv[1]), EngineOptions(threads=int(sys.argv[2]), spin=sys.argv[3] == "own"))
engine.run([np.ones((8, 64), np.float32)])
print(threads() - before)
"""


@pytest.mark.parametrize("cores", ["own", "share"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("environment", [{}, {"ORT_INTRA_OP_NUM_THREADS": "5"}], ids=["plain", "variable"])
def test_exactly_the_threads_asked_for(
    threads: int, cores: str, environment: Mapping[str, str], tmp_path: Path
) -> None:
    model = models.mlp(tmp_path / "m.onnx")
    command = [sys.executable, "-c", COUNT_THREADS, str(model), str(threads), cores]
    done = subprocess.run(
        command, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) == threads - 1
    assert done.stderr == ""


def test_a_model_cannot_bring_its_own_session_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.affine(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.metadata_props.add(key="ort_config", value='{"session_options": {"intra_op_num_threads": 7}}')
    onnx.save(model, path)
    assert session.open_session(path, EngineOptions()).get_session_options().intra_op_num_threads == 1
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    assert "ORT config" in reason(path)


def test_a_fallback_to_other_providers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.affine(tmp_path / "m.onnx")
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["Other"])
    assert reason(path) == "ONNX Runtime chose the providers ['Other'], not ['CPUExecutionProvider']"


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(models.mlp(tmp_path / "m.onnx"), EngineOptions())
    reason(models.unknown_operator(tmp_path / "bad.onnx"))
    assert capfd.readouterr() == ("", "")


def test_unranked_inputs_are_found_in_the_file(tmp_path: Path) -> None:
    assert unranked_inputs(models.unranked_input(tmp_path / "m.onnx")) == {"x"}
    assert unranked_inputs(models.scalar(tmp_path / "s.onnx")) == set()
    assert unranked_inputs(models.mlp(tmp_path / "l.onnx")) == set()


def test_unranked_inputs_of_a_file_with_every_wire_type(tmp_path: Path) -> None:
    """Fixed-width fields that a newer format might add are skipped."""
    path = models.unranked_input(tmp_path / "m.onnx")
    field = 15
    fixed64, fixed32 = bytes([field << 3 | 1, *bytes(8)]), bytes([field << 3 | 5, *bytes(4)])
    path.write_bytes(fixed64 + fixed32 + path.read_bytes())
    assert unranked_inputs(path) == {"x"}
