"""What `predictd plan` shows is what `predictd serve` starts: read from /proc."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from predictd.server.launch.cpulist import parse_cpulist
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND, running

FLAGS = ("--frontends", "2", "--instances", "2")


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0").decode()


def test_a_daemon_starts_what_the_plan_shows(tmp_path: Path) -> None:
    for name, settings in (("a", "cpu_weight = 300"), ("b", "threads = 1")):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        models.mlp(tmp_path / "models" / name / "1" / "model.onnx")
        (tmp_path / "models" / name / "model.toml").write_text(settings)
    arguments = (str(tmp_path / "models"), *FLAGS)
    shown = subprocess.run(
        [*COMMAND, "plan", *arguments, "--json"], capture_output=True, check=True, timeout=60
    )
    document = json.loads(shown.stdout)
    planned = {f"predictd: frontend {n}": child for n, child in enumerate(document["frontends"])}
    for name, pool in document["pools"].items():
        planned |= {f"predictd: worker {name} {n}": child for n, child in enumerate(pool["workers"])}
    with running(*arguments, folder=tmp_path / "daemon") as daemon:
        found = {_title(pid): pid for pid in daemon.children()}
        assert found.keys() == planned.keys()
        for title, pid in found.items():
            assert os.sched_getaffinity(pid) == set(parse_cpulist(planned[title]["cpus"])), title
            environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            expected = {f"{name}={value}" for name, value in planned[title]["environment"].items()}
            assert expected <= set(environ), title
            # Besides what the engine makes: one runs, one talks to the supervisor.
            if "worker" in title:
                assert len(list(Path(f"/proc/{pid}/task").iterdir())) >= planned[title]["threads"]
