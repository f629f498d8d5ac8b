import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from predictd.engines.api import EngineError, EngineOptions, ModelLoadError
from tests.fixtures import faulty_engine

PATH = Path("model")
RUN = """
import sys
from pathlib import Path
import numpy as np
from predictd.engines.api import EngineOptions
from tests.fixtures.faulty_engine import load
engine = load(Path("model"), EngineOptions(parameters={sys.argv[2]: "true"} if sys.argv[2:] else {}))
engine.run([np.full((2, 1), float(sys.argv[1]), np.float32)])
"""


def exit_status(*arguments: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", RUN, *arguments]
    return subprocess.run(command, check=False, timeout=30, env=environment).returncode


def test_ordinary_values_are_answered() -> None:
    engine = faulty_engine.load(PATH, EngineOptions())
    x = np.array([[1], [2]], np.float32)
    out = np.zeros((2, 1), np.float32)
    assert engine.run([x])[0].tolist() == [[1], [2]]
    assert engine.run([x], [out])[0] is out
    assert out.tolist() == [[1], [2]]


def test_processes_die_as_asked() -> None:
    assert exit_status("1") == 0
    assert exit_status("666") == -signal.SIGKILL
    assert exit_status("667") == -signal.SIGSEGV
    assert exit_status("1", "crash_on_load") == -signal.SIGKILL


@pytest.mark.parametrize(
    ("value", "error"),
    [(faulty_engine.ENGINE_ERROR, EngineError), (faulty_engine.RUNTIME_ERROR, RuntimeError)],
)
def test_errors_are_raised_as_asked(value: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="asked to"):
        faulty_engine.load(PATH, EngineOptions()).run([np.array([[0], [value]], np.float32)])


def test_blocking_lasts_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for parameters in ({"block_seconds": "3"}, {}):
        engine = faulty_engine.load(PATH, EngineOptions(parameters=parameters))
        engine.run([np.array([[faulty_engine.BLOCK]], np.float32)])
    assert slept == [3, 0.2]


def test_unknown_parameters_are_refused() -> None:
    with pytest.raises(ModelLoadError, match="unknown parameters"):
        faulty_engine.load(PATH, EngineOptions(parameters={"crash": "true"}))
