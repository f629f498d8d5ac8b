"""Readiness and health while models load, serve, or cannot be served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from predictd.client import NO_RETRIES, Client, UnavailableError
from tests.fixtures import models
from tests.fixtures.daemon import Daemon
from tests.fixtures.processes import (
    FAULTY,
    GATED,
    NOT_SERVING,
    SERVING,
    Health,
    X,
    assert_gone,
    assert_tidy,
    complaints,
    custom,
    family,
    free_port,
    refused,
    scaled,
    serving,
    versioned,
)

SERVICES = ("", "predictd.v1.PredictionService", "inference.GRPCInferenceService")


def test_readiness_waits_for_every_model_and_each_model_for_itself(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    repository = tmp_path / "models"
    versioned(repository, "quick", {1: 2.0})
    custom(repository, "slow", GATED, load_gate=gate)
    address, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
    daemon = Daemon(repository, folder=tmp_path / "run", grpc=address, http=http)
    daemon.http = http
    try:
        with Health(address) as health, Client(address, retries=NO_RETRIES) as client:
            quick = health.watch("quick")
            while next(quick) != SERVING:
                pass
            # The port is open and one model serves, but not everything that was asked for.
            watches = {service: health.watch(service) for service in SERVICES}
            assert {next(watch) for watch in watches.values()} == {NOT_SERVING}
            assert [health.check(name) for name in (*SERVICES, "slow")] == [NOT_SERVING] * 4
            assert daemon.get("/readyz") == (503, "not ready\nslow version 1 LOADING\n")
            assert daemon.get("/healthz") == (200, "ok\n")
            assert daemon.metric("predictd_ready") == 0
            assert not (tmp_path / "run" / "ready.json").exists()
            assert scaled(client, "quick") == 2.0
            with pytest.raises(UnavailableError, match="version 1 of model 'slow' is still loading"):
                client.predict("slow", {"x": X[:, :1]})

            gate.touch()
            assert {next(watch) for watch in watches.values()} == {SERVING}
            daemon.wait_ready()
            assert [health.check(name) for name in (*SERVICES, "slow", "quick")] == [SERVING] * 5
            assert daemon.get("/readyz") == (200, "ready\n")
            assert daemon.metric("predictd_ready") == 1
            ready = json.loads((tmp_path / "run" / "ready.json").read_text())
            assert ready == {"grpc": address, "http": http}

            pids = family(daemon)
            assert daemon.stop() == 0
            # Whoever watches learns of the end before it comes.
            assert {next(watch) for watch in watches.values()} == {NOT_SERVING}
            assert next(quick) == NOT_SERVING
            with pytest.raises(grpc.RpcError) as ended:
                next(quick)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert_gone(pids)
        assert_tidy(daemon, tmp_path / "run")
    finally:
        daemon.kill()


def test_the_health_of_an_unknown_name_is_unknown(tmp_path: Path) -> None:
    versioned(tmp_path, "double", {1: 2.0})
    with serving(tmp_path / "double", folder=tmp_path / "run") as daemon, Health(daemon.grpc) as health:
        with pytest.raises(grpc.RpcError) as refusal:
            health.check("doubel")
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        service_unknown = 3
        assert next(health.watch("doubel")) == service_unknown


def _garbage(path: Path) -> Path:
    path.write_bytes(b"this is no model")
    return path


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "garbage": (_garbage, "Protobuf parsing failed"),
    "operator": (models.unknown_operator, "Frobnicate"),
    "sequence": (models.sequence_output, "output 'y' is of type seq(tensor(float)), which is not served"),
}


def test_a_broken_model_is_reported_and_the_others_serve(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    versioned(repository, "good", {1: 2.0})
    for name, (make, _) in BROKEN.items():
        make(repository / f"{name}.onnx")
    with (
        serving(repository, folder=tmp_path / "run") as daemon,
        Health(daemon.grpc) as health,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        for name in BROKEN:
            daemon.wait_said(f"model {name} version 1 failed: ")
        said = complaints(daemon)
        status, ready = daemon.get("/readyz")
        assert (status, ready.splitlines()[0]) == (200, "ready")
        listed = {model.name: model for model in client.models()}
        for name, (_, reason) in BROKEN.items():
            lines = [line for line in said if line.startswith(f"model {name} version 1 failed: ")]
            assert len(lines) == 1
            assert reason in lines[0]
            assert str(repository / f"{name}.onnx") in lines[0]
            assert sum(reason in line for line in ready.splitlines()) == 1
            assert f"\n{name} version 1 FAILED: " in ready
            (version,) = listed[name].versions
            assert (version.version, version.state) == (1, "FAILED")
            assert reason in version.reason
            assert listed[name].default_version == 0
            assert daemon.metric("predictd_lane_state", model=name, state="FAILED") == 1
            assert health.check(name) == NOT_SERVING
            with pytest.raises(UnavailableError, match=f"model '{name}' failed to load") as refusal:
                client.predict(name, {"x": X})
            # Paths are for operators.
            assert str(tmp_path) not in refusal.value.message
        assert [health.check(name) for name in ("", "good")] == [SERVING, SERVING]
        assert scaled(client, "good") == 2.0
        # Nothing runs for a model that cannot be served.
        daemon.wait_until(lambda: len(daemon.pids("workers")) == 1, 20, "down to one worker")


@pytest.mark.parametrize("name", BROKEN)
def test_a_single_broken_model_ends_the_daemon_with_one_clear_line(name: str, tmp_path: Path) -> None:
    make, reason = BROKEN[name]
    path = make(tmp_path / f"{name}.onnx")
    refusal = refused(path, folder=tmp_path / "run")
    assert refusal.status == 1
    assert refusal.plain == []
    (last,) = [event.message for event in refusal.events if event.level == "critical"]
    assert last.startswith(f"predictd stops: model {name} version 1: {path}: ")
    assert reason in last
    assert last.endswith("(no model can be served)")
    assert refusal.complaints[-1] == last


def test_strict_makes_a_broken_model_fatal_and_names_it(tmp_path: Path) -> None:
    good = versioned(tmp_path, "good", {1: 2.0})
    bad = _garbage(tmp_path / "bad.onnx")
    refusal = refused(good, bad, "--strict", folder=tmp_path / "run")
    assert refusal.status == 1
    assert refusal.complaints[-1].startswith(f"predictd stops: model bad version 1: {bad}: ")
    assert refusal.complaints[-1].endswith("(--strict)")


def test_strict_makes_what_cannot_be_a_model_fatal(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    versioned(repository, "good", {1: 2.0})
    (repository / "empty").mkdir()
    with (
        serving(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert scaled(client, "good") == 2.0
        problem = f"{repository / 'empty'}: no model: put model.onnx here, or 1/model.onnx"
        daemon.wait_said(problem)
        assert complaints(daemon) == [problem]
    refusal = refused(repository, "--strict", folder=tmp_path / "strict")
    assert refusal.status == 2
    assert refusal.complaints == [problem, f"predictd: {problem} (--strict)"]


def test_a_model_that_kills_its_worker_at_load_is_given_up_and_the_others_serve(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    versioned(repository, "good", {1: 2.0})
    custom(repository, "deadly", FAULTY, crash_on_load="true")
    with (
        serving(repository, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert scaled(client, "good") == 2.0
        (version,) = client.model("deadly").versions
        assert version.state == "FAILED"
        assert "killed by SIGKILL" in version.reason
        with pytest.raises(UnavailableError, match="model 'deadly' failed to load"):
            client.predict("deadly", {"x": X[:, :1]})
        assert daemon.wait_said("model deadly version 1 failed: ") == 1


@pytest.mark.parametrize(
    ("make", "status", "message"),
    [
        (lambda path: path / "missing.onnx", 2, "predictd serve: {}: no such file or directory"),
        (lambda path: path, 2, "predictd: there is no model to serve in {}"),
    ],
)
def test_nothing_to_serve_is_said_at_once(
    make: Callable[[Path], Path], status: int, message: str, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    path = make(empty)
    refusal = refused(path, folder=tmp_path / "run")
    assert refusal.status == status
    assert refusal.plain == [message.format(path)]


def test_a_ready_file_of_an_earlier_daemon_does_not_announce_this_one(tmp_path: Path) -> None:
    gate, ready_file = tmp_path / "gate", tmp_path / "ready.json"
    ready_file.write_text('{"grpc": "127.0.0.1:1", "http": "127.0.0.1:2"}')
    model = custom(tmp_path, "slow", GATED, load_gate=gate)
    daemon = Daemon(model, folder=tmp_path / "run", ready_file=ready_file)
    try:
        daemon.wait_until(lambda: "frontend 0" in daemon.output(), 30, "on its way")
        assert not ready_file.exists()
        gate.touch()
        daemon.wait_ready()
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            client.predict("slow", {"x": X[:, :1]})
        assert daemon.stop() == 0
        assert not list(tmp_path.glob(".ready*"))
    finally:
        daemon.kill()


def test_a_ready_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    path = tmp_path / "missing" / "ready.json"
    refusal = refused(model, folder=tmp_path / "run", ready_file=path)
    assert refusal.status == 2
    assert refusal.complaints == [
        f"predictd: the ready file {path} cannot be written: no such file or directory"
    ]
