"""Swaps that keep resources, and what of commands outlives a real daemon."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client, NotFoundError, UnavailableError
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.tfs import serving_pb2 as tfs_pb
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND, Daemon, running
from tests.fixtures.processes import scaled, versioned
from tests.fixtures.reloading import reload_config
from tests.fixtures.swapping import age, version

X = np.arange(8, dtype=np.float32).reshape(2, 4)
# While a machine is busy, a worker may take long to start.
SECONDS = 60.0


def lines(daemon: Daemon, text: str) -> list[str]:
    return [line for line in daemon.output().splitlines() if text in line]


def gated(folder: Path, number: int) -> Path:
    """A version whose load waits, where the model's parameters say so."""
    model = folder / str(number) / "model.onnx"
    model.parent.mkdir(parents=True)
    model.touch()
    age(model)
    return model.parent


# Resources before availability -----------------------------------------------------------------------------------


def test_where_resources_are_kept_the_old_version_is_gone_before_the_new_one_loads(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m"
    gated(folder, 1)
    gate = tmp_path / "gate"
    gate.touch()
    toml = folder / "model.toml"
    toml.write_text(
        f'swap = "resource"\nengine = "tests.fixtures.gated_engine:load"\n[parameters]\nload_gate = "{gate}"\n'
    )
    age(toml)
    x = np.zeros((1, 1), np.float32)
    with (
        running(tmp_path / "models", folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        (old,) = daemon.pids("workers")
        assert client.predict("m", {"x": x}).version == 1
        gate.unlink()
        gated(tmp_path / "aside", 2).rename(folder / "2")
        most, seen_loading = 0, False
        refusals: set[str] = set()
        deadline = time.monotonic() + SECONDS
        while not seen_loading or not refusals:
            assert time.monotonic() < deadline, daemon.output()
            workers = daemon.pids("workers")
            most = max(most, len(workers))
            seen_loading = bool(workers) and old not in workers
            try:
                assert client.predict("m", {"x": x}).version == 1
            except UnavailableError as error:
                refusals.add(str(error))
        # While it loads, nobody is told that there is no such model.
        with pytest.raises(UnavailableError, match="version 2 of model 'm' is still loading"):
            client.predict("m", {"x": x})
        assert most == 1, "the old and the new were there at once"
        allowed = ("version 1 of model 'm' is being unloaded", "version 2 of model 'm' is still loading")
        assert all(any(text in refusal for text in allowed) for refusal in refusals), refusals
        gate.touch()
        daemon.wait_until(lambda: lines(daemon, "loaded m version 2"), SECONDS, "loaded")
        daemon.wait_until(
            lambda: [v.state for v in client.model("m").versions] == ["READY"], SECONDS, "ready"
        )
        assert client.predict("m", {"x": x}).version == 2
        shown = {one.name: (one.value, one.origin) for one in client.model("m").settings}
        assert shown["swap"] == ("resource", "model.toml:1")
        output = daemon.output()
        assert output.index("retiring m version 1") < output.index("loading m version 2")


# What cannot be served, where it is asked for --------------------------------------------------------------------


def test_new_content_that_fails_is_shown_beside_the_old_that_serves(tmp_path: Path) -> None:
    path = version(tmp_path / "models" / "m", 1, 3.0)
    with (
        running(tmp_path / "models", folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        new = models.unknown_operator(tmp_path / "new.onnx")
        age(new)
        new.replace(path / "model.onnx")
        why = "the old content serves on, as the new one failed: "
        daemon.wait_until(lambda: client.model("m").versions[0].reason.startswith(why), SECONDS, "shown")
        (one,) = client.model("m").versions
        assert (one.state, "Frobnicate" in one.reason) == ("READY", True)
        with grpc.insecure_channel(daemon.grpc) as channel:
            (listed,) = channel.unary_unary(
                "/inference.GRPCInferenceService/RepositoryIndex",
                request_serializer=oip.RepositoryIndexRequest.SerializeToString,
                response_deserializer=oip.RepositoryIndexResponse.FromString,
            )(oip.RepositoryIndexRequest(), timeout=SECONDS).models
        assert (listed.state, listed.reason) == ("READY", one.reason)
        shell = subprocess.run(
            [*COMMAND, "models", "--grpc", daemon.grpc],
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        assert f"m: version 1: {one.reason}" in shell.stdout


# Restarts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    for name in ("a", "b", "c", "d"):
        versioned(repository, name, {1: 2.0, 2: 4.0})
    return repository


def test_what_was_loaded_and_unloaded_by_command_outlives_the_daemon(
    repository: Path, tmp_path: Path
) -> None:
    options = ["--model-control", "explicit", "--load-model", "a", "--load-model", "b"]
    options += ["--state-dir", str(tmp_path / "state")]
    both = {"version_policy": {"specific": {"versions": [1, 2]}}}

    def served(client: Client) -> dict[str, list[int]]:
        return {model.name: [one.version for one in model.versions] for model in client.models()}

    with running(repository, *options, folder=tmp_path / "1") as daemon:
        with Client(daemon.grpc, deadline=SECONDS) as client:
            client.unload_model("a")
            client.load_model("c", config={**both, "max_batch_size": 3})
            client.load_model("d")
            assert served(client) == {"b": [2], "c": [2, 1], "d": [2]}
        assert daemon.stop() == 0
    # One of them is gone by the next start.
    (repository / "d").rename(tmp_path / "d")
    with running(repository, *options, folder=tmp_path / "2") as daemon:
        with Client(daemon.grpc, deadline=SECONDS) as client:
            assert served(client) == {"b": [2], "c": [2, 1]}
            assert client.model("c").versions[0].max_batch_size == 3
            shown = {one.name: one.origin for one in client.model("c").settings}
            assert shown["max_batch_size"] == "given when it was loaded"
            assert [scaled(client, "c", version=number) for number in (1, 2)] == [2.0, 4.0]
            # The same by TensorFlow Serving's list, with labels.
            policy = tfs_pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy
            a = tfs_pb.ModelConfig(
                name="a",
                base_path=str(repository / "a"),
                model_version_policy=policy(specific=policy.Specific(versions=[1, 2])),
                version_labels={"stable": 1, "canary": 2},
            )
            assert reload_config(daemon.grpc, a) == ("OK", "")
            assert (served(client), scaled(client, "a", label="stable")) == ({"a": [2, 1]}, 2.0)
            a.version_labels["canary"] = 3
            code, message = reload_config(daemon.grpc, a)
            assert (code, "not currently available for inference" in message) == ("FAILED_PRECONDITION", True)
        assert len(lines(daemon, "model 'd' was loaded by command, which is not restored")) == 1
        assert daemon.stop() == 0
    kept = json.loads((tmp_path / "state" / "state.json").read_text())
    assert (list(kept["loaded"]), kept["unloaded"]) == (["a", "d"], ["b", "c"])
    started = running(repository, *options, folder=tmp_path / "3")
    with started as daemon, Client(daemon.grpc, deadline=SECONDS) as client:
        assert served(client) == {"a": [2, 1]}
        assert [scaled(client, "a", label=label) for label in ("stable", "canary")] == [2.0, 4.0]
        with pytest.raises(NotFoundError):
            client.predict("b", {"x": X})
