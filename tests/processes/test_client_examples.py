"""clients/examples, each run as it stands against a daemon; what cannot be installed here is skipped by name."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client
from tests.fixtures import models
from tests.fixtures.daemon import REPOSITORY, Daemon, running

EXAMPLES = REPOSITORY / "clients" / "examples"
# What an example says, and what it needs: a program, or a package.
SAYS = {
    "blocking.py": ("[[2. 4. 6.]] by version 1\nrefused: input 'x' of model 'double' has shape [1, 2]", ""),
    "asynchronous.py": ("sum of all: 1140.0\n", ""),
    "streaming.py": ("sum of all: 2997000.0\n", ""),
    "triton_client.py": ("[[2. 4. 6.]]\n", "tritonclient"),
    "tensorflow_serving_client.py": ("[[2. 4. 6.]]\n", "tensorflow_serving"),
    "curl.sh": ("ready\npredictd_requests_total", "curl"),
    "grpcurl.sh": ('"data": "AAAAQAAAgEAAAMBA"', "grpcurl"),
    "buf.sh": ('"data": "AAAAQAAAgEAAAMBA"', "buf"),
}


@pytest.fixture(name="daemon", scope="module")
def _daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("examples")
    model = models.affine(folder / "double.onnx", scale=2.0, bias=0.0, width=3)
    with running(model, folder=folder / "run") as daemon:
        # Whichever example comes first, there is something to count.
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            client.predict("double", {"x": np.ones((1, 3), np.float32)})
        daemon.wait_metric("predictd_requests_total", 1)
        yield daemon


def python_with(package: str) -> str | None:
    """An interpreter that has a package: this one, or the one that the environment names."""
    if not package or importlib.util.find_spec(package):
        return sys.executable
    return os.environ.get(f"PYTHON_WITH_{package.upper()}")


def test_every_example_is_listed() -> None:
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".sh"}}
    assert found == set(SAYS)
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}`" in listed for name in found)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_says_what_it_should(name: str, daemon: Daemon, tmp_path: Path) -> None:
    expected, needs = SAYS[name]
    if name.endswith(".py"):
        interpreter = python_with(needs)
        command = interpreter and [interpreter, str(EXAMPLES / name)]
    else:
        command = [str(EXAMPLES / name)] if shutil.which(needs) else None
    if not command:
        pytest.skip(f"{needs} is not installed")
    address = daemon.http if name == "curl.sh" else daemon.grpc
    done = subprocess.run(
        [*command, address],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
