"""Where the threads of a real daemon run under load, how many they are, and with which environment.

Everything is read from /proc and compared with the plan that `serve` makes of the same machine.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client
from predictd.engines.traits import BUILT_IN
from predictd.server.config.resolve import resolve
from predictd.server.launch.allocators import choose_allocator
from predictd.server.launch.budget import read_budget
from predictd.server.launch.cpulist import format_cpulist, parse_cpulist
from predictd.server.launch.environment import child_environment
from predictd.server.launch.facilities import read_facilities
from predictd.server.launch.plan import ChildPlan, LaunchPlan
from predictd.server.launch.topology import read_topology
from predictd.server.repository.watch import look
from predictd.server.supervise.assembly import Planner, divide, plan_request
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND, Daemon
from tests.fixtures.limits import NotPermittedError, cpu_quota, cpuset, taskset
from tests.fixtures.processes import complaints, serving

CPUS = sorted(os.sched_getaffinity(0))
# A process title has room for it, although it does not overwrite the environment.
MODEL = "a-model-whose-name-is-longer-than-what-a-worker-is-started-with"
WIDTH = 256
LOOKS = 20
# So that /proc shows the supervisor's environment too, to which Python adds nothing in this locale.
ENVIRONMENT = {"SPT_NOENV": "1", "LC_ALL": "C.UTF-8"}
# One runs, one talks to the supervisor; with them, of a worker's threads, the engine's own.
OWN_THREADS = 2


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as /proc shows it: the CPUs that it may use, and the one that it used last."""

    cpus: tuple[int, ...]
    cpu: int


def _onnx(folder: Path) -> str:
    models.mlp(folder / "model.onnx", width=WIDTH)
    return ""


def _torch(folder: Path) -> str:
    # Here, because it imports PyTorch, through the engine, which knows what its import warns of.
    importlib.import_module("predictd.engines.torch.engine")
    from tests.fixtures import torch_models

    torch_models.script(folder / "model.pt", torch_models.Dense(WIDTH))
    shape = f"shape = [-1, {WIDTH}]"
    return f'[inputs.x]\ndtype = "FP32"\n{shape}\n[outputs.y]\ndtype = "FP32"\n{shape}\n'


# Each writes a model and gives what model.toml has to say of its tensors.
_EXPORTERS: Mapping[str, Callable[[Path], str]] = {
    "onnxruntime": _onnx,
    "openvino": _onnx,
    "torch": _torch,
}
_RUNTIMES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def _model(engine: str, folder: Path, *settings: str) -> Path:
    """A model for an engine; skips where there is no such engine."""
    if engine not in BUILT_IN or importlib.util.find_spec(_RUNTIMES[engine]) is None:
        pytest.skip(f"the engine {engine} is not installed")
    model = folder / MODEL
    (model / "1").mkdir(parents=True)
    tensors = _EXPORTERS[engine](model / "1")
    (model / "model.toml").write_text("\n".join([f'engine = "{engine}"', *settings, tensors]))
    return model


def _threads(pid: int) -> list[Thread]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
            stat = (task / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            # It ended since it was listed.
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        # Field 39 of proc(5); the first here is the third there.
        found.append(Thread(parse_cpulist(fields["Cpus_allowed_list"]), int(stat[36])))
    return found


def _environment(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(line.split("=", 1) for line in text.split("\0") if line)


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0").decode()


def _planned(daemon: Daemon, flags: Mapping[str, object]) -> LaunchPlan:
    """The plan that `serve` makes with these flags."""
    settings = resolve(flags, {})
    topology = read_topology(CPUS)
    planner = Planner(topology, read_budget(CPUS, topology.ids), read_facilities())
    pools = divide(look(settings.paths).scan.models, settings, planner.cores)
    return planner.plan(plan_request(pools, settings, _environment(daemon.process.pid)))


def _children(daemon: Daemon, plan: LaunchPlan) -> dict[int, ChildPlan]:
    """The plan of each child, by its process id."""
    planned = {f"predictd: frontend {number}": child for number, child in enumerate(plan.frontends)}
    for pool, workers in plan.pools.items():
        planned |= {f"predictd: worker {pool} {number}": child for number, child in enumerate(workers)}
    titles = {_title(pid): pid for pid in daemon.children()}
    assert titles.keys() == planned.keys()
    return {titles[title]: child for title, child in planned.items()}


@contextmanager
def _load(daemon: Daemon, callers: int) -> Iterator[Callable[[], object]]:
    """Callers that keep all workers busy; yields a call to make beside them."""
    x = {"x": np.ones((8, WIDTH), np.float32)}
    over = threading.Event()
    failures: list[BaseException] = []

    def call() -> None:
        try:
            with Client(daemon.grpc, retries=NO_RETRIES) as client:
                while not over.is_set():
                    client.predict(MODEL, x)
        except BaseException as error:  # noqa: BLE001 - for the test to see
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            yield lambda: client.predict(MODEL, x)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.parametrize("instances", [1, 2, 4])
@pytest.mark.parametrize("engine", _RUNTIMES)
def test_every_thread_stays_where_the_plan_says_and_none_is_squeezed(
    engine: str, instances: int, tmp_path: Path
) -> None:
    # What does not run while it is loaded keeps the threads that are planned, however short its runs are.
    model = _model(engine, tmp_path / "models", 'warmup = {mode = "none"}')
    flags = {"paths": (str(model),), "instances": str(instances), "frontends": "2"}
    options = (model, "--instances", str(instances), "--frontends", "2")
    with serving(*options, folder=tmp_path / "run", environment=ENVIRONMENT) as daemon:
        plan = _planned(daemon, flags)
        children = _children(daemon, plan)
        base = _environment(daemon.process.pid)
        for pid, child in children.items():
            assert _environment(pid) == child_environment(base, child.environment)
        with _load(daemon, callers=2 * instances) as call:
            for _ in range(LOOKS):
                call()
                for pid, child in children.items():
                    _check_threads(_threads(pid), child)
        for worker in plan.pools[MODEL]:
            assert len(set(worker.cpus)) >= worker.threads
        if engine == "onnxruntime":
            for pid, child in children.items():
                if "worker" in _title(pid):
                    # ONNX Runtime computes with the thread that asks, and one less of its own.
                    assert len(_threads(pid)) == OWN_THREADS + child.threads - 1


def _check_threads(threads: Sequence[Thread], child: ChildPlan) -> None:
    assert threads
    for thread in threads:
        assert thread.cpus == child.cpus, f"{thread} of {child.cpus}"
        assert thread.cpu in child.cpus


@contextmanager
def _limited(kind: str) -> Iterator[tuple[Sequence[str], tuple[int, ...]]]:
    """What to put before a command so that it has one CPU, and the CPUs that it then sees."""
    one = format_cpulist(CPUS[-1:])
    if kind == "taskset":
        yield taskset(one), (CPUS[-1],)
        return
    try:
        if kind == "quota":
            # A CPU and a half: rounded down, as one thread too many throttles all.
            with cpu_quota(1.5) as command:
                yield command, tuple(CPUS)
        else:
            with cpuset(one) as command:
                yield command, (CPUS[-1],)
    except NotPermittedError as error:
        pytest.skip(str(error))


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU cannot be limited further")
@pytest.mark.parametrize("kind", ["quota", "cpuset", "taskset"])
def test_thread_counts_follow_a_limit(kind: str, tmp_path: Path) -> None:
    model = _model("onnxruntime", tmp_path / "models")
    with _limited(kind) as (prefix, cpus):
        command = (*prefix, *COMMAND)
        with (
            serving(model, folder=tmp_path / "run", command=command) as daemon,
            _load(daemon, callers=2) as call,
        ):
            for _ in range(LOOKS):
                call()
                for pid in daemon.children():
                    assert {thread.cpus for thread in _threads(pid)} == {cpus}
            (worker,) = daemon.pids("workers")
            assert len(_threads(worker)) == OWN_THREADS


@pytest.mark.parametrize("allocator", ["jemalloc", "tcmalloc"])
def test_workers_have_the_allocator_that_is_asked_for(allocator: str, tmp_path: Path) -> None:
    model = _model("onnxruntime", tmp_path / "models", f'allocator = "{allocator}"')
    library = choose_allocator(allocator, read_facilities(), {}).library
    with serving(model, folder=tmp_path / "run") as daemon, Client(daemon.grpc, retries=NO_RETRIES) as client:
        client.predict(MODEL, {"x": np.ones((1, WIDTH), np.float32)})
        (worker,) = daemon.pids("workers")
        mapped = Path(f"/proc/{worker}/maps").read_text()
        if library is None:
            daemon.wait_said(f"allocator {allocator} is asked for")
        warned = [line for line in complaints(daemon) if f"allocator {allocator} is asked for" in line]
        if library is None:
            assert len(warned) == 1
            assert f"lib{allocator}" not in mapped
        else:
            assert warned == []
            assert Path(library).resolve().name in mapped
        (front_end,) = daemon.pids("front ends")
        assert f"lib{allocator}" not in Path(f"/proc/{front_end}/maps").read_text()
