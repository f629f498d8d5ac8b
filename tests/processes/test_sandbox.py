"""What a worker can still reach that a model file has taken over."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client
from predictd.server.launch.sandbox.support import read_support
from tests.fixtures.daemon import Daemon
from tests.fixtures.intruding_engine import ATTEMPTS
from tests.fixtures.processes import refused, scaled, serving, versioned

SUPPORT = read_support()
REFUSED = {errno.EACCES, errno.EPERM, errno.ENOSYS}
ALLOWED = {"read a model", "write the cache"}
NOBODY = 65534

pytestmark = pytest.mark.skipif(
    not (SUPPORT.seccomp and SUPPORT.landlock_abi >= 6), reason="needs seccomp and Landlock of Linux 6.12"
)


def intruder(folder: Path, port: int) -> Path:
    """A model that is served by the intruding engine."""
    model = folder / "models" / "intruder"
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(b"anything")
    secret = folder / "secret"
    secret.write_text("token")
    (model / "model.toml").write_text(
        'engine = "tests.fixtures.intruding_engine:load"\n'
        f'parameters = {{ port = "{port}", secret = "{secret}", cache = "{folder}/run/cache" }}\n'
    )
    return folder / "models"


@contextmanager
def somebody() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def came_of(daemon: Daemon) -> dict[str, int]:
    """What came of each attempt of the intruder."""
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        answer = client.predict("intruder", {"x": np.zeros((1, 1), np.float32)})
    return dict(zip(ATTEMPTS, answer.outputs["y"][0].tolist(), strict=True))


def environment(folder: Path) -> dict[str, str]:
    """Temporary files elsewhere: what lies beside the test's own folder counts as somebody else's."""
    (folder / "tmp").mkdir(exist_ok=True)
    return {"TMPDIR": str(folder / "tmp")}


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_an_intruder_reaches_the_model_and_the_cache_and_nothing_else(tmp_path: Path) -> None:
    with somebody() as port:
        models = intruder(tmp_path, port)
        arguments = (models, "--worker-sandbox", "require")
        with serving(*arguments, folder=tmp_path / "run", environment=environment(tmp_path)) as daemon:
            came = came_of(daemon)
            assert {name for name, error in came.items() if error == 0} == ALLOWED, came
            assert {error for error in came.values() if error} <= REFUSED, came
            (worker,) = daemon.pids("workers")
            status = status_of(worker)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            assert resource.prlimit(worker, resource.RLIMIT_CORE) == (0, 0)
            (process,) = [
                one
                for one in json.loads(daemon.get("/status.json")[1])["processes"]
                if one["role"] == "worker"
            ]
            assert any(line.startswith("sandbox: reads the models") for line in process["reasons"])


def test_an_engine_of_the_operator_is_left_alone_unless_asked_for(tmp_path: Path) -> None:
    """Else the attempts above would prove nothing: without the sandbox they work."""
    with somebody() as port, serving(intruder(tmp_path, port), folder=tmp_path / "run") as daemon:
        came = came_of(daemon)
        worked = {name for name, error in came.items() if error == 0}
        assert worked >= {"connect", "unix socket", "read a secret", "write a model", "signal the supervisor"}
        assert worked >= {"read a model", "network of a child", "limit the supervisor"}
        assert came["read the supervisor's memory"] == errno.EFAULT
        (worker,) = daemon.pids("workers")
        assert status_of(worker)["Seccomp"] == "0"


def test_built_in_engines_are_confined_without_being_asked(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    versioned(volume / "one", "double", {1: 2.0})
    versioned(volume / "two", "double", {1: 3.0})
    # A volume that is swapped by a link, as git-sync and ConfigMaps do it.
    (volume / "current").symlink_to("one")
    with (
        serving(volume / "current", folder=tmp_path / "run", environment=environment(tmp_path)) as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert scaled(client, "double") == 2.0
        (worker,) = daemon.pids("workers")
        assert status_of(worker)["Seccomp"] == "2"
        (volume / "next").symlink_to("two")
        (volume / "next").rename(volume / "current")
        daemon.wait_until(lambda: scaled(client, "double") == 3.0, 60, "swapped")


def test_what_is_linked_out_of_the_repository_is_not_served(tmp_path: Path) -> None:
    versioned(tmp_path / "elsewhere", "other", {1: 3.0})
    models = tmp_path / "models"
    versioned(models, "double", {1: 2.0})
    (models / "other").symlink_to(tmp_path / "elsewhere" / "other")
    complaint = "a link out of the folders that are served: copy it there, or name its folder in linked_dir"
    with serving(models, folder=tmp_path / "run", environment=environment(tmp_path)) as daemon:
        daemon.wait_said(complaint)
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert [model.name for model in client.models()] == ["double"]
    arguments = (models, "--linked-dir", tmp_path / "elsewhere")
    with serving(*arguments, folder=tmp_path / "again", environment=environment(tmp_path)) as daemon:
        assert complaint not in daemon.output()
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            assert scaled(client, "other") == 3.0


def _python_for_everybody() -> tuple[str, ...] | None:
    """A command for the daemon whose interpreter and packages every user may read; None where there is none."""
    candidates = (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}")
    for candidate in candidates:
        folders = Path(candidate).resolve().parents
        if Path(candidate).exists() and all(folder.stat().st_mode & 0o001 for folder in folders):
            return (candidate, "-c", "from predictd.server.cli.main import main; main()")
    return None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_workers_are_another_user(tmp_path: Path) -> None:
    command = _python_for_everybody()
    if command is None:
        pytest.skip("no Python that every user may run")
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    model = versioned(tmp_path / "models", "double", {1: 2.0})
    model.chmod(0o755)
    # Of this interpreter the packages alone: the other one has a library of its own.
    packages = os.pathsep.join(path for path in sys.path if path and not path.startswith(sys.base_prefix))
    variables = {**environment(tmp_path), "PYTHONPATH": packages}
    (tmp_path / "tmp").chmod(0o777)
    arguments = (model, "--worker-user", str(NOBODY))
    with (
        serving(*arguments, folder=tmp_path / "run", environment=variables, command=command) as daemon,
        Client(daemon.grpc, retries=NO_RETRIES) as client,
    ):
        assert scaled(client, "double") == 2.0
        (worker,) = daemon.pids("workers")
        status = status_of(worker)
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(NOBODY)}
        assert int(status["CapPrm"], 16) == 0
        assert (tmp_path / "run" / "cache").stat().st_uid == NOBODY
        (model / "1" / "model.onnx").chmod(0o600)
        os.utime(model / "1" / "model.onnx", (1, 1))
        complaint = f"not readable by user {NOBODY}"
        daemon.wait_until(lambda: complaint in daemon.output(), 60, complaint)
        assert scaled(client, "double") == 2.0


def test_a_user_that_there_is_not_is_one_line(tmp_path: Path) -> None:
    model = versioned(tmp_path, "double", {1: 2.0})
    outcome = refused(model, "--worker-user", "nobody-of-that-name", folder=tmp_path / "run")
    assert outcome.status == 2
    assert outcome.plain == ["predictd: worker_user (--worker-user): there is no user 'nobody-of-that-name'"]
