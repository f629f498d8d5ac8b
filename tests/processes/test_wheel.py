"""The wheels, built once and installed outside the checkout into an environment that has no other predictd."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import google.protobuf
import numpy as np
import pytest

from tests.fixtures import models, prediction_service
from tests.fixtures.daemon import REPOSITORY
from tests.fixtures.processes import serving

SITE = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
# What an import finds, and an answer, from inside the environment.
ASK = """
import importlib, json, sys
import numpy as np
from predictd.client import Client

names = ["predictd.client", "predictd.protos.v1.predictd_pb2", "predictd.protos.oip.grpc_service_pb2",
         "predictd.engines.api", "predictd.server.cli.main", "predictd.server.supervise.daemon"]
with Client(sys.argv[1]) as client:
    y = client.predict("affine", {"x": np.array([[1, 2, 3, 4]], np.float32)}).outputs["y"]
print(json.dumps({"files": [importlib.import_module(name).__file__ for name in names], "y": y.tolist()}))
"""
# What the client alone does, and what it finds of the others.
ALONE = """
import importlib.util, json, sys
import numpy as np
import predictd.client

with predictd.client.Client(sys.argv[1]) as client:
    x = client.predict("echo", {"x": np.array([[1, 2]], np.float32)}).outputs["x"]
names = ("predictd.server", "predictd.engines", "predictd.protos.oip", "predictd.protos.v1")
print(json.dumps({"x": x.tolist(), "file": predictd.client.__file__,
                  "found": [name for name in names if importlib.util.find_spec(name)]}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(name="wheels", scope="module")
def _wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both wheels, built from what git tracks or would: nothing that is ignored gets in."""
    tracked = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    source = tmp_path_factory.mktemp("source")
    for name in run(*tracked, cwd=REPOSITORY).split("\0"):
        if name and (REPOSITORY / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((REPOSITORY / name).read_bytes())
    assert not list(source.rglob("*_pb2.py"))
    out = tmp_path_factory.mktemp("dist")
    for project in (source / "clients", source):
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=project)
    return sorted(out.glob("*.whl"))


@pytest.fixture(name="environment", scope="module")
def _environment(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("environment") / "venv", wheels)


def make_environment(folder: Path, wheels: list[Path]) -> Path:
    """An environment with wheels; their dependencies are those of the environment that the tests run in."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check")
    run(*pip, "install", "--no-index", "--no-deps", *wheels, cwd=folder.parent)
    # Of a folder that a .pth names, the .pth files are not read: the checkout stays out of it.
    dependencies = Path(np.__file__).parents[1]
    assert dependencies == Path(google.protobuf.__file__).parents[2]
    (folder / SITE / "dependencies.pth").write_text(f"{dependencies}\n")
    return folder


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_there_are_two_wheels_for_everybody_and_no_file_is_in_both(wheels: list[Path]) -> None:
    assert [wheel.name.split("-")[0] for wheel in wheels] == ["predictd", "predictd_client"]
    assert all(wheel.name.endswith("-py3-none-any.whl") for wheel in wheels)
    counted = Counter(name for wheel in wheels for name in names(wheel))
    assert max(counted.values()) == 1, [name for name, number in counted.items() if number > 1]


def test_the_wheels_hold_what_they_should_and_nothing_else(wheels: list[Path]) -> None:
    daemon, client = (names(wheel) for wheel in wheels)
    assert {name.split("/")[1] for name in daemon if name.startswith("predictd/")} == {
        "server",
        "engines",
        "protos",
    }
    assert {name.split("/")[1] for name in client if name.startswith("predictd/")} == {"client", "protos"}
    for name in ("predictd_pb2.py", "predictd_pb2.pyi", "predictd.proto", "__init__.py"):
        assert f"predictd/protos/v1/{name}" in client
    for name in ("grpc_service_pb2.py", "grpc_service_pb2.pyi", "model_config_pb2.py"):
        assert f"predictd/protos/oip/{name}" in daemon
    assert "predictd/server/observe/status.html" in daemon
    for package in ("server", "engines"):
        assert f"predictd/{package}/py.typed" in daemon
    for package in ("client", "protos"):
        assert f"predictd/{package}/py.typed" in client
    for name in (*daemon, *client):
        # The namespace belongs to nobody, and tests, locks and the like stay at home.
        assert name != "predictd/__init__.py"
        assert name.startswith(("predictd/", "predictd-", "predictd_client-")), name
    (metadata,) = (name for name in daemon if name.endswith("METADATA"))
    with zipfile.ZipFile(wheels[0]) as archive:
        text = archive.read(metadata).decode()
    assert "Requires-Dist: predictd-client==" in text
    assert "License-File: LICENSE" in text


def test_what_was_installed_serves_and_asks_without_the_checkout(environment: Path, tmp_path: Path) -> None:
    model = models.affine(tmp_path / "affine.onnx", scale=2.0, bias=1.0)
    command = (str(environment / "bin" / "predictd"),)
    with serving(model, folder=tmp_path / "run", command=command, environment={"PYTHONPATH": ""}) as daemon:
        python = environment / "bin" / "python"
        told = json.loads(run("env", "-u", "PYTHONPATH", python, "-P", "-c", ASK, daemon.grpc, cwd=tmp_path))
        assert told["y"] == [[3.0, 5.0, 7.0, 9.0]]
        assert all(Path(file).is_relative_to(environment / SITE) for file in told["files"]), told

        shell = ("env", "-u", "PYTHONPATH", *command, "models", "--grpc", daemon.grpc)
        assert "affine" in run(*shell, cwd=tmp_path)


def test_the_client_works_alone(wheels: list[Path], tmp_path: Path) -> None:
    alone = make_environment(tmp_path / "venv", wheels[1:])
    with prediction_service.serving(prediction_service.FakeService()) as target:
        python = alone / "bin" / "python"
        told = json.loads(run("env", "-u", "PYTHONPATH", python, "-P", "-c", ALONE, target, cwd=tmp_path))
    assert told["x"] == [[1.0, 2.0]]
    assert told["found"] == ["predictd.protos.v1"]
    assert Path(told["file"]).is_relative_to(alone / SITE)
    with zipfile.ZipFile(wheels[1]) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        text = archive.read(metadata).decode()
    assert "License-File: LICENSE" in text
    assert "# predictd-client" in text
    assert "Requires-Dist: predictd" not in text


def test_the_version_is_that_of_the_wheel(environment: Path, wheels: list[Path], tmp_path: Path) -> None:
    said = run(environment / "bin" / "predictd", "--version", cwd=tmp_path)
    assert said.split()[-1] == wheels[0].name.split("-")[1]
