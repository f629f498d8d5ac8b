"""Messages that reach new code are gone on with: coverage-guided fuzzing, where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.daemon import REPOSITORY
from tests.fuzz.targets import TARGETS

pytest.importorskip("atheris", reason="atheris is not installed (requirements-fuzz.lock)")

# Those of what comes from outside.
SHORT = ("predictd_v1", "oip", "tfs_predict", "tfs_examples", "config_pbtxt", "model_toml", "response_block")
RUNS, SOAK_RUNS = 10_000, 500_000


def guided(name: str, folder: Path, runs: int) -> None:
    """Raises AssertionError with what was found, and the message."""
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPOSITORY))))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", name, str(folder / "found"), f"-runs={runs}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {runs} runs" in done.stderr


@pytest.mark.parametrize("name", SHORT)
def test_no_message_that_reaches_new_code_is_too_much(name: str, tmp_path: Path) -> None:
    guided(name, tmp_path, RUNS)


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_no_message_of_many_that_reach_new_code_is_too_much(name: str, tmp_path: Path) -> None:
    guided(name, tmp_path, SOAK_RUNS)
