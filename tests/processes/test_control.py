"""Loading and unloading a real daemon's models by command, while it serves."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from predictd.client import (
    NO_RETRIES,
    AsyncClient,
    Client,
    InvalidRequestError,
    NotFoundError,
    PredictdError,
    UnavailableError,
)
from predictd.protos.tfs import serving_pb2 as tfs_pb
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND, REPOSITORY, Daemon
from tests.fixtures.gated_engine import HOLD
from tests.fixtures.processes import custom, refused, scaled, serving, versioned
from tests.fixtures.reloading import LOAD_SECONDS, reload_config

EXPLICIT = ("--model-control", "explicit")
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def names(client: Client) -> list[str]:
    return [model.name for model in client.models()]


def shell(daemon: Daemon, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, *words, "--grpc", daemon.grpc], capture_output=True, text=True, check=False, timeout=100
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control")


@pytest.fixture(scope="module")
def repository(root: Path) -> Path:
    repository = root / "models"
    versioned(repository, "steady", {1: 3.0})
    versioned(repository, "m", {1: 5.0, 2: 7.0})
    versioned(repository, "listed", {1: 2.0, 2: 4.0})
    return repository


@pytest.fixture(scope="module")
def daemon(root: Path, repository: Path) -> Iterator[Daemon]:
    """Serves what it is told to; each test leaves `steady` alone loaded."""
    with serving(repository, *EXPLICIT, "--load-model", "steady", folder=root / "run") as daemon:
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    before = set(daemon.children())
    with Client(daemon.grpc, deadline=LOAD_SECONDS) as client:
        yield client
    # The answer of an unload does not wait for the last breath of the worker.
    daemon.wait_until(lambda: set(daemon.children()) == before, LOAD_SECONDS, "rid of its workers")


def test_only_what_is_named_is_loaded_at_the_start(client: Client) -> None:
    assert names(client) == ["steady"]
    with pytest.raises(NotFoundError):
        client.model("m")


@pytest.mark.usefixtures("client")
def test_other_models_lose_no_request_while_models_come_and_go(daemon: Daemon) -> None:
    async def scenario() -> int:
        over, answers = asyncio.Event(), 0

        async def ask(client: AsyncClient) -> None:
            nonlocal answers
            while not over.is_set():
                prediction = await client.predict("steady", {"x": X})
                np.testing.assert_array_equal(prediction.outputs["y"], X * np.float32(3))
                answers += 1

        async with AsyncClient(daemon.grpc, deadline=LOAD_SECONDS) as client:
            callers = [asyncio.ensure_future(ask(client)) for _ in range(8)]
            try:
                for _ in range(3):
                    await client.load_model("m")
                    # The answer of a load is a promise: the very next request is served.
                    y = (await client.predict("m", {"x": X})).outputs["y"]
                    np.testing.assert_array_equal(y, X * np.float32(7))
                    await client.unload_model("m")
                    with pytest.raises(NotFoundError):
                        await client.predict("m", {"x": X})
            finally:
                over.set()
                await asyncio.gather(*callers)
        return answers

    assert asyncio.run(scenario()) > 0


def test_a_broken_version_says_why_the_old_one_serves_on_and_a_repaired_one_is_loaded(
    repository: Path, client: Client
) -> None:
    versioned(repository, "mended", {1: 2.0, 2: 9.0})
    model = repository / "mended" / "2" / "model.onnx"
    good = model.read_bytes()
    client.load_model("mended", config={"version_policy": {"specific": {"versions": [1]}}})
    models.unknown_operator(model)
    for _ in range(2):
        # It is tried again although nothing changed.
        with pytest.raises(PredictdError, match=r"version 2 of model 'mended' failed: .+") as caught:
            client.load_model("mended")
        assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert [version.state for version in client.model("mended").versions] == ["FAILED", "READY"]
        assert scaled(client, "mended") == 2.0
    model.write_bytes(good[: len(good) // 2])
    with pytest.raises(PredictdError, match=r"version 2 of model 'mended' failed: .+"):
        client.load_model("mended")
    assert scaled(client, "mended") == 2.0
    model.write_bytes(good)
    client.load_model("mended")
    # The old one may still be on its way out.
    serving_now = [v.version for v in client.model("mended").versions if v.state == "READY"]
    assert serving_now == [2]
    assert scaled(client, "mended") == 9.0
    client.unload_model("mended")


def test_a_model_whose_settings_are_wrong_is_not_loaded_and_says_why(
    repository: Path, client: Client
) -> None:
    versioned(repository, "odd", {1: 2.0}, toml="max_batch_size = 'many'\n")
    with pytest.raises(
        PredictdError, match=r"model 'odd' cannot be served as it is: .*model\.toml.*"
    ) as caught:
        client.load_model("odd")
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(InvalidRequestError, match="'platform' cannot be overridden"):
        client.load_model("m", config={"platform": "x"})
    assert names(client) == ["steady"]


def test_the_shell_loads_and_unloads(daemon: Daemon, client: Client) -> None:
    assert shell(daemon, "load", "m", "--set", '{"max_batch_size": 5}') == (0, "m is loaded\n", "")
    assert client.model("m").versions[0].max_batch_size == 5
    assert shell(daemon, "unload", "m") == (0, "m is unloaded\n", "")
    assert names(client) == ["steady"]
    status, printed, error = shell(daemon, "load", "nobody")
    assert (status, printed) == (1, "")
    assert error == "predictd: there is no model 'nobody' in the paths that the daemon serves\n"
    assert shell(daemon, "unload", "nobody")[0] == 1


def test_unloading_finishes_what_is_in_flight(
    daemon: Daemon, repository: Path, client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    custom(repository, "held", "tests.fixtures.gated_engine:load", run_gate=gate)
    client.load_model("held")
    with ThreadPoolExecutor() as threads:
        try:
            answer = threads.submit(client.predict, "held", {"x": np.full((1, 1), HOLD, np.float32)})
            daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 1, LOAD_SECONDS, "in flight")
            unloaded = threads.submit(client.unload_model, "held")
            daemon.wait_until(
                lambda: [version.state for version in client.model("held").versions] == ["UNLOADING"],
                LOAD_SECONDS,
                "unloading",
            )
            assert not unloaded.done()
        finally:
            gate.touch()
        assert answer.result(LOAD_SECONDS).outputs["y"].tolist() == [[HOLD]]
        unloaded.result(LOAD_SECONDS)
    assert names(client) == ["steady"]


@pytest.mark.usefixtures("client")
def test_triton_s_client_loads_and_unloads(daemon: Daemon) -> None:
    script = REPOSITORY / "tests" / "fixtures" / "triton_control.py"
    done = subprocess.run(
        [sys.executable, str(script), daemon.grpc], capture_output=True, text=True, check=True, timeout=100
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    steady = ["steady", "1", "READY"]
    assert seen["at first"] == [steady]
    assert seen["loaded"] == [[["m", "2", "READY"], steady], True, 7.0]
    assert seen["overridden"] == [[["m", "2", "READY"], ["m", "1", "READY"], steady], 5.0, 7.0]
    assert seen["batch"] == 3
    assert seen["unloaded"] == [steady]
    assert seen["file"] == [
        "StatusCode.INVALID_ARGUMENT",
        "parameter 'file:1/model.onnx': file override is not enabled",
    ]
    assert seen["nobody"][0] == "StatusCode.NOT_FOUND"
    assert seen["wrong"][0] == "StatusCode.INVALID_ARGUMENT"


def test_a_list_of_tensorflow_serving_is_what_is_served(
    daemon: Daemon, repository: Path, client: Client
) -> None:
    policy = tfs_pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy
    both = policy(specific=policy.Specific(versions=[1, 2]))
    steady = tfs_pb.ModelConfig(name="steady", base_path=str(repository / "steady"))
    listed = tfs_pb.ModelConfig(
        name="listed", base_path=str(repository / "listed"), model_version_policy=both
    )
    client.load_model("m")
    assert reload_config(daemon.grpc, steady, listed) == ("OK", "")
    assert names(client) == ["listed", "steady"]
    assert [scaled(client, "listed", version=version) for version in (1, 2)] == [2.0, 4.0]
    code, message = reload_config(daemon.grpc, steady, tfs_pb.ModelConfig(name="x", base_path="/elsewhere"))
    assert (code, "'x'" in message) == ("INVALID_ARGUMENT", True)
    code, message = reload_config(daemon.grpc, tfs_pb.ModelConfig(name="steady", base_path="/elsewhere"))
    assert (code, "base_path" in message) == ("INVALID_ARGUMENT", True)
    assert names(client) == ["listed", "steady"]
    assert reload_config(daemon.grpc, steady) == ("OK", "")
    assert names(client) == ["steady"]


# Other daemons --------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_there_cannot_be_loaded_at_the_start(repository: Path, tmp_path: Path) -> None:
    refusal = refused(repository, *EXPLICIT, "--load-model", "nobody", folder=tmp_path / "run")
    assert refusal.status == 2
    assert refusal.plain == [f"predictd: there is no model 'nobody' to load in {repository}"]


def test_where_the_disk_decides_a_load_tries_again_and_an_unload_is_refused(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    good = versioned(repository, "good", {1: 3.0}) / "1" / "model.onnx"
    (repository / "bad" / "1").mkdir(parents=True)
    bad = models.unknown_operator(repository / "bad" / "1" / "model.onnx")
    arguments = (repository, "--model-control", "none")
    with (
        serving(*arguments, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        with pytest.raises(UnavailableError, match="--model-control explicit"):
            client.unload_model("good")
        code, message = reload_config(daemon.grpc, tfs_pb.ModelConfig(name="good"))
        assert (code, "'bad', which is not in the list" in message) == ("UNAVAILABLE", True)
        with pytest.raises(PredictdError, match="version 1 of model 'bad' failed"):
            client.load_model("bad", deadline=LOAD_SECONDS)
        bad.write_bytes(good.read_bytes())
        client.load_model("bad", deadline=LOAD_SECONDS)
        assert [scaled(client, name) for name in ("bad", "good")] == [3.0, 3.0]


@pytest.mark.parametrize("allowed", [False, True])
def test_commands_from_beyond_the_machine_need_an_option(
    repository: Path, allowed: bool, tmp_path: Path
) -> None:
    options = ("--allow-control",) if allowed else ()
    arguments = (repository / "steady", *EXPLICIT, *options)
    unix = tmp_path / "socket"
    with serving(*arguments, "--unix", unix, folder=tmp_path / "run", grpc="0.0.0.0:0") as daemon:
        target = f"127.0.0.1:{daemon.grpc.rpartition(':')[2]}"
        with Client(target, deadline=LOAD_SECONDS) as client:
            # Without a model it is ready to be told.
            assert (names(client), daemon.get("/readyz")[0]) == ([], 200)
            if allowed:
                client.load_model("steady")
                assert scaled(client, "steady") == 3.0
                client.unload_model("steady")
                assert (names(client), daemon.get("/readyz")[0]) == ([], 200)
                return
            with pytest.raises(PredictdError, match="--allow-control") as caught:
                client.load_model("steady")
            assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
            with pytest.raises(grpc.RpcError) as error:
                reload_config(target, tfs_pb.ModelConfig(name="steady"))
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert names(client) == []
            # Who reaches the file is on this machine.
            with Client(f"unix://{unix}", deadline=LOAD_SECONDS) as local:
                local.load_model("steady")
            assert names(client) == ["steady"]
