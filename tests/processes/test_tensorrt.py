"""Plans of TensorRT on a machine without a GPU: one clear line, and the daemon lives."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from predictd.client import Client
from tests.fixtures.daemon import REPOSITORY, running
from tests.fixtures.processes import log
from tests.fixtures.swapping import content

# As far as one gets without a driver: the next call ends the process.
_TENSORRT = """
import os
__version__ = "10.13.3.9"
class ILogger:
    def __init__(self): pass
def Runtime(logger): os.abort()
"""


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(_has_driver(), reason="there is an NVIDIA driver")
def test_a_plan_without_a_gpu_fails_in_one_line_and_the_others_serve(tmp_path: Path) -> None:
    models, packages = tmp_path / "models", tmp_path / "packages"
    packages.mkdir()
    (packages / "tensorrt.py").write_text(_TENSORRT)
    content(models / "good.onnx", 2.0)
    (models / "planned.plan").write_bytes(b"a plan")
    content(models / "provided" / "1" / "model.onnx", 3.0)
    (models / "provided" / "model.toml").write_text('device = "0"\n')
    path = os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH"), str(REPOSITORY))))
    with running(models, folder=tmp_path / "run", environment={"PYTHONPATH": path}) as daemon:
        said = [event.message for event in log(daemon) if event.level in {"warning", "error"}]
        for name, reason in (
            ("planned", f"{models / 'planned.plan'}: there is no NVIDIA driver here: libcuda.so.1"),
            (
                "provided",
                "the device '0' needs CUDAExecutionProvider, without which this ONNX Runtime was built",
            ),
        ):
            (line,) = [text for text in said if text.startswith(f"model {name} version 1 failed: ")]
            assert reason in line
        with Client(daemon.grpc) as client:
            states = {model.name: model.versions[0].state for model in client.models()}
            assert states == {"good": "READY", "planned": "FAILED", "provided": "FAILED"}
        assert daemon.metric("predictd_worker_restarts_total") == 0
