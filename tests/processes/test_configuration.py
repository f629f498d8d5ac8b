"""Settings as they reach the running daemon and its processes: files, variables, flags; CPUs and environments."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import psutil
import pytest

from predictd.client import NO_RETRIES, Client, InvalidRequestError, OverloadedError
from predictd.server.launch.allocators import choose_allocator
from predictd.server.launch.facilities import read_facilities
from tests.fixtures.daemon import REPOSITORY, Daemon
from tests.fixtures.processes import X, log, refused, scaled, serving, versioned


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    return versioned(tmp_path / "models", "double", {1: 2.0})


def _batch(daemon: Daemon) -> int:
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        return client.model("double").versions[0].max_batch_size


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with serving(model, folder=run) as daemon:
        assert _batch(daemon) == 32
    (run / "predictd.toml").write_text('max_batch_size = 5\nlog_level = "debug"\n')
    with serving(model, folder=run) as daemon:
        assert _batch(daemon) == 5
    variable = {"PREDICTD_MAX_BATCH_SIZE": "6"}
    with serving(model, folder=run, environment=variable) as daemon:
        assert _batch(daemon) == 6
    with serving(model, "--max-batch-size", "7", folder=run, environment=variable) as daemon:
        assert _batch(daemon) == 7
    (model / "model.toml").write_text("max_batch_size = 8\n")
    with serving(model, "--max-batch-size", "7", folder=run, environment=variable) as daemon:
        assert _batch(daemon) == 8


def test_a_daemon_can_be_configured_without_any_argument(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "predictd.toml").write_text(f'paths = ["{os.path.relpath(model, run)}"]\nfrontends = 2\n')
    with serving(folder=run, environment={"PREDICTD_INSTANCES": "2"}) as daemon:
        assert (len(daemon.pids("front ends")), len(daemon.pids("workers"))) == (2, 2)
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert scaled(client, "double") == 2.0


@pytest.mark.parametrize(
    ("arguments", "environment", "toml", "line"),
    [
        (
            ["--max-delay", "5"],
            {},
            "",
            "predictd serve: --max-delay: '5' has no unit; write for example 10ms (units: ns, us, ms, s, m, h)",
        ),
        (
            [],
            {"PREDICTD_THREADS": "many"},
            "",
            "predictd serve: PREDICTD_THREADS: 'many' is not a whole number",
        ),
        (
            [],
            {},
            "max_batch_sise = 3\n",
            "predictd serve: predictd.toml: unknown key 'max_batch_sise'; did you mean 'max_batch_size'?",
        ),
        (
            ["--lame-duck", "1m"],
            {},
            "",
            (
                "predictd serve: lame_duck (--lame-duck) and drain_timeout (default): the lame duck time (1m) is "
                "part of the drain timeout (30s) and cannot be longer"
            ),
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_where(
    arguments: list[str], environment: dict[str, str], toml: str, line: str, model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if toml:
        (run / "predictd.toml").write_text(toml)
    refusal = refused(model, *arguments, folder=run, environment=environment)
    assert (refusal.status, refusal.plain) == (2, [line])


def test_limits_of_rows_messages_and_memory_reach_the_front_ends(model: Path, tmp_path: Path) -> None:
    options = ("--max-request-rows", "3", "--max-message-size", "64KiB", "--arena-limit", "1MiB")
    with (
        serving(model, *options, folder=tmp_path / "run") as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert scaled(client, "double") == 2.0
        with pytest.raises(InvalidRequestError, match="4 rows"):
            client.predict("double", {"x": np.zeros((4, 4), np.float32)})
        with pytest.raises(OverloadedError, match="65536"):
            client.predict("double", {"x": np.zeros((16384, 4), np.float32)})
        # Neither did harm.
        assert scaled(client, "double") == 2.0


# Every Python process that finds this on its path says what it was started with, before anything else runs in it.
_WITNESS = """
import atexit, json, os, pathlib, sys

_folder = pathlib.Path(os.environ["WITNESS"])

def _testify(moment):
    seen = {
        "environment": dict(os.environ),
        "cpus": sorted(os.sched_getaffinity(0)),
    }
    (_folder / f"{os.getpid()}.{moment}.json").write_text(json.dumps(seen))

_testify("start")
atexit.register(_testify, "end")
"""
_PLANNED = {
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    "SPT_NOENV": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # What the user exported wins.
    "MKL_NUM_THREADS": "3",
}
_GRPC = {"GRPC_VERBOSITY": "ERROR", "GRPC_ENABLE_FORK_SUPPORT": "0"}


def _testimony(folder: Path, pid: int, moment: str = "start") -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / f"{pid}.{moment}.json").read_text())
    return found


def test_children_are_started_with_the_cpus_and_the_environment_of_the_plan(
    model: Path, tmp_path: Path
) -> None:
    witness = tmp_path / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_text(_WITNESS)
    # What the test itself imports goes before the repository.
    path = os.pathsep.join(filter(None, (str(witness), os.environ.get("PYTHONPATH"), str(REPOSITORY))))
    exported = {"PYTHONPATH": path, "WITNESS": str(witness), "MKL_NUM_THREADS": "3"}
    cpus = sorted(os.sched_getaffinity(0))
    options = ("--frontends", "2", "--instances", "2", "--threads", "1")
    with serving(model, *options, folder=tmp_path / "run", environment=exported) as daemon:
        supervisor = daemon.process.pid
        own = _testimony(witness, supervisor)
        base = own["environment"]
        assert isinstance(base, dict)

        front_ends = [_testimony(witness, pid) for pid in daemon.pids("front ends")]
        assert len(front_ends) == 2
        for seen in front_ends:
            assert seen["environment"] == base | _PLANNED | _GRPC
            assert seen["cpus"] == cpus

        pids = daemon.pids("workers")
        workers = [_testimony(witness, pid) for pid in pids]
        assert len(workers) == 2
        own_cores = len(cpus) >= 2 and "own" in _plan_line(daemon, "worker double")
        allocator = {v.name: v.value for v in choose_allocator(None, read_facilities(), {}).variables}
        for seen in workers:
            assert seen["environment"] == base | _PLANNED | allocator
        masks = [set(_cpus(seen)) for seen in workers]
        assert all(mask and mask <= set(cpus) for mask in masks)
        if own_cores:
            assert not masks[0] & masks[1]
        for pid, mask in zip(pids, masks, strict=True):
            process = psutil.Process(pid)
            # Every thread of it, not only the first.
            assert set(process.cpu_affinity()) == mask
            assert all(os.sched_getaffinity(thread.id) == mask for thread in process.threads())
            # One that runs and one that talks to the supervisor: no library has made threads of its own.
            assert process.num_threads() == 2
    # A supervisor that changed its own environment would pass that on to everything it starts later.
    assert _testimony(witness, supervisor, "end") == own


def _cpus(seen: dict[str, object]) -> list[int]:
    cpus = seen["cpus"]
    assert isinstance(cpus, list)
    return cpus


def _plan_line(daemon: Daemon, start: str) -> str:
    daemon.wait_said(f'"{start}')
    return next(event.message for event in log(daemon) if event.message.startswith(start))


def test_a_daemon_keeps_within_the_cpus_that_it_was_given(model: Path, tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[:1])
    try:
        daemon = Daemon(model, folder=tmp_path / "run")
    finally:
        os.sched_setaffinity(0, cpus)
    try:
        daemon.wait_ready()
        for role in ("supervisor", "front ends", "workers"):
            for pid in daemon.pids(role):
                assert psutil.Process(pid).cpu_affinity() == cpus[:1]
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert client.predict("double", {"x": X}).timing.batch_rows == 2
        assert daemon.stop() == 0
    finally:
        daemon.kill()
