"""The daemon as an operator meets it: what is served, from which paths, and how it is asked from the shell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client, NotFoundError
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND, Daemon
from tests.fixtures.processes import scaled, serving, versioned

# What is promised is 2 s on a machine of one's own; this one is shared by whatever else runs.
READY_SECONDS_MAX = 20.0


def predictd(*arguments: str, daemon: Daemon) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "predictd.server.cli.main", *arguments, "--grpc", daemon.grpc]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_model_file_is_served_and_nothing_in_the_working_folder_is_code(tmp_path: Path) -> None:
    model = models.affine(tmp_path / "affine.onnx", scale=2.0, bias=1.0, width=4)
    run = tmp_path / "run"
    run.mkdir()
    theirs = run / "msgspec.py"
    theirs.write_text("raise SystemExit('imported')")
    # As the script `predictd`, which does not look there for what it imports, and has no variable to say so.
    command = (sys.executable, "-P", *COMMAND[1:])
    with (
        serving(model, folder=run, command=command, environment={"PYTHONSAFEPATH": ""}) as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        x = np.arange(8, dtype=np.float32).reshape(2, 4)
        prediction = client.predict("affine", {"x": x})
        np.testing.assert_array_equal(prediction.outputs["y"], x * 2 + 1)
        assert prediction.version == 1
        assert daemon.get("/readyz") == (200, "ready\n")
        daemon.wait_metric("predictd_requests_total", 1, model="affine", status="OK")
        theirs.unlink()


def test_a_small_model_is_ready_soon(tmp_path: Path) -> None:
    model = models.mlp(tmp_path / "mlp.onnx")
    started = time.monotonic()
    with serving(model, folder=tmp_path / "run"):
        assert time.monotonic() - started <= READY_SECONDS_MAX


def test_a_repository_serves_the_highest_version_of_each_model(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    # Version 10 is higher than 9, although its name sorts before it.
    versioned(repository, "many", {1: 3.0, 9: 5.0, 10: 7.0})
    versioned(repository, "one", {4: 11.0})
    models.affine(repository / "bare.onnx", scale=13.0, bias=0.0)
    with (
        serving(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert scaled(client, "many") == 7.0
        assert scaled(client, "one") == 11.0
        assert scaled(client, "bare") == 13.0
        assert {model.name: model.default_version for model in client.models()} == {
            "bare": 1,
            "many": 10,
            "one": 4,
        }
        assert scaled(client, "many", version=10) == 7.0
        with pytest.raises(NotFoundError, match=r"model 'many' has no version 9 \(versions: 10\)"):
            client.predict("many", {"x": np.zeros((1, 4), np.float32)}, version=9)


def test_several_paths_of_all_kinds_are_served_together(tmp_path: Path) -> None:
    models.affine(tmp_path / "file.onnx", scale=2.0, bias=0.0)
    versioned(tmp_path / "repository", "inside", {1: 3.0})
    folder = versioned(tmp_path / "elsewhere", "folder", {2: 5.0})
    paths = (tmp_path / "file.onnx", tmp_path / "repository", folder)
    with (
        serving(*paths, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert [scaled(client, name) for name in ("file", "inside", "folder")] == [2.0, 3.0, 5.0]


def test_a_model_toml_decides_batching_and_workers_of_its_model_alone(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    versioned(repository, "tuned", {1: 2.0}, toml="max_batch_size = 1\ninstances = 2\n")
    versioned(repository, "plain", {1: 3.0})
    with (
        serving(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert client.model("tuned").versions[0].max_batch_size == 1
        assert client.model("plain").versions[0].max_batch_size == 32
        daemon.wait_metric("predictd_worker_state", 2, pool="tuned", state="serving")
        daemon.wait_metric("predictd_worker_state", 1, pool="plain", state="serving")
        assert len(daemon.pids("workers")) == 3
        # What is asked for in one request stays in one run, whatever is merged.
        prediction = client.predict("tuned", {"x": np.ones((5, 4), np.float32)})
        assert prediction.outputs["y"].shape == (5, 4)


def test_predict_and_models_work_from_the_shell(tmp_path: Path) -> None:
    versioned(tmp_path / "models", "double", {3: 2.0})
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3, 4]], np.float32))
    with serving(tmp_path / "models", folder=tmp_path / "run") as daemon:
        listed = predictd("models", daemon=daemon)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert listed.stdout.splitlines()[1].split()[:4] == ["double", "3", "READY", "onnxruntime"]

        given = f"x=@{tmp_path / 'x.npy'}"
        answered = predictd("predict", "double", "--input", given, "--json", daemon=daemon)
        assert (answered.returncode, answered.stderr) == (0, "")
        answer = json.loads(answered.stdout)
        assert (answer["model"], answer["version"]) == ("double", 3)
        assert answer["outputs"][0]["data"] == [[2.0, 4.0, 6.0, 8.0]]

        unknown = predictd("predict", "doubel", "--input", given, daemon=daemon)
        assert unknown.returncode == 1
        assert unknown.stderr == "predictd: model 'doubel' is not known\n"

    gone = predictd("models", daemon=daemon)
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"predictd: no daemon answers at {daemon.grpc} (")
    assert len(gone.stderr.splitlines()) == 1
