"""`predictd tune` with real daemons: an engine that sleeps does twice as much with two workers, on any machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest

from predictd.client import NO_RETRIES, Client
from tests.fixtures.daemon import COMMAND, REPOSITORY, Daemon
from tests.fixtures.processes import assert_gone, custom, log, serving

SLOW = "tests.fixtures.slow_engine:load"
TWO = "instances = 2"
_SECONDS = 200.0
# So long that what the machine does beside hardly matters to how many runs there are in a second.
RUN_SECONDS = 0.05


def command(model: Path, folder: Path, *more: str) -> list[str]:
    return [*COMMAND, "tune", str(model), "--cache-dir", str(folder / "cache"), "--callers", "2", *more]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREDICTD_")}
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPOSITORY))))
    return {**kept, "PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1"}


def tune(model: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(model, folder, *more),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "tuned").rglob("*.json"))


def tuned(daemon: Daemon, name: str) -> str:
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        return client.model(name).versions[0].tuned


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    return custom(tmp_path / "models", "slow", SLOW, run_seconds=RUN_SECONDS)


@pytest.mark.timeout(300)
def test_what_is_better_is_found_kept_written_and_served(model: Path, tmp_path: Path) -> None:
    before = (model / "model.toml").read_bytes()
    done = tune(model, tmp_path, "--for", "150s", "--try", "instances=2", "--write")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best: instances 2: " in done.stdout
    assert "| default " in done.stdout
    assert "final comparison: 1/" in done.stderr

    # The user's file has the table and is otherwise what it was; nothing else was written there.
    after = files(model)
    assert after.keys() == {"model.toml"}
    assert after["model.toml"].startswith(before)
    assert TWO in after["model.toml"].decode()
    (evidence,) = kept(tmp_path)
    content: dict[str, Any] = json.loads(evidence.read_text())
    assert content["confirmed"]
    assert content["model"]["name"] == "slow"
    assert content["tuned"]["instances"] == 2
    two = next(row for row in content["measured"] if row["settings"] == "instances 2")
    assert two["against_default"]["verdict"] == "better"
    assert [point["callers"] for point in two["points"]] == [1, 2]
    ET.parse(evidence.with_suffix(".svg"))

    # From the model's own file.
    with serving(model, folder=tmp_path / "run") as daemon:
        assert len(daemon.pids("workers")) == 2
        assert tuned(daemon, "slow").startswith("instances 2 (tuned on ")
        daemon.wait_said("tuned on")
        assert any("model slow: " in event.message and "tuned on" in event.message for event in log(daemon))
    with serving(model, "--instances", "1", folder=tmp_path / "run") as daemon:
        assert len(daemon.pids("workers")) == 1
    # Of another machine, and not at all.
    (model / "model.toml").write_text(after["model.toml"].decode().replace('cpu = "', 'cpu = "another '))
    with serving(model, folder=tmp_path / "run") as daemon:
        assert (len(daemon.pids("workers")), tuned(daemon, "slow")) == (1, "")
        daemon.wait_said("tuned on another")
        warnings = [event.message for event in log(daemon) if event.level == "warning"]
        assert len([text for text in warnings if "tuned on another" in text and "ignored" in text]) == 1


def test_too_few_rounds_are_said_and_nothing_is_written(model: Path, tmp_path: Path) -> None:
    before = files(model)
    done = tune(model, tmp_path, "--for", "3s", "--try", "max_delay=1ms", "--write", "--latency-slo", "10s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "too few rounds" in done.stdout
    assert files(model) == before
    assert kept(tmp_path) == []


def test_a_model_that_cannot_be_measured_is_one_line(model: Path, tmp_path: Path) -> None:
    own = model / "model.toml"
    own.write_text(own.read_text().replace("run_seconds", "ran_seconds"))
    done = tune(model, tmp_path, "--for", "5s")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("predictd")]
    assert len(lines) == 1
    assert "the model cannot be measured as it is" in lines[0]
    nothing = tune(tmp_path, tmp_path, "--for", "5s")
    assert nothing.returncode == 1
    assert "give one model's file or folder" in nothing.stderr
    assert "cannot be tuned" in tune(model, tmp_path, "--try", "colour=red").stderr


@pytest.mark.timeout(300)
def test_an_interrupt_keeps_the_best_so_far_and_leaves_nothing_running(model: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(model, tmp_path, "--for", "4m", "--try", "instances=2,3", "--try", "spin=false"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen: set[int] = set()
    try:
        assert process.stderr is not None
        for line in process.stderr:
            seen |= family(process.pid)
            # Two rounds of the first stage are over.
            if "instances and threads: 7/" in line:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, output
    assert "best: instances " in output
    assert "not confirmed: only 2 rounds" in output
    (evidence,) = kept(tmp_path)
    content = json.loads(evidence.read_text())
    assert not content["confirmed"]
    assert content["tuned"]["instances"] in (2, 3)
    # Tune itself, and whatever it ran at the time.
    assert len(seen) > 1
    assert_gone(seen)
    # What is in the cache is served, too.
    with serving(
        model, folder=tmp_path / "run", environment={"PREDICTD_CACHE_DIR": str(tmp_path / "cache")}
    ) as daemon:
        assert len(daemon.pids("workers")) == content["tuned"]["instances"]


def test_a_search_that_is_killed_leaves_nothing_running(model: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(model, tmp_path, "--for", "10m"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        # Callers, a supervisor, a front end and a worker.
        while len(seen := family(process.pid)) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert_gone(seen)


def family(pid: int) -> set[int]:
    """A process and everything below it."""
    try:
        process = psutil.Process(pid)
        return {pid, *(child.pid for child in process.children(recursive=True))}
    except psutil.NoSuchProcess:
        return {pid}
