"""The plan of machines and containers as they are found, line by line, from files to text."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from predictd.server.launch.budget import read_budget
from predictd.server.launch.describe import describe
from predictd.server.launch.plan import PlanRequest, PoolRequest, plan
from predictd.server.launch.topology import read_topology
from tests.fixtures.sysfs import FakeSystem

Explain = Callable[..., str]

NO_QUOTA = "  no CPU quota in any visible cgroup"


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


@pytest.fixture
def explain(system: FakeSystem) -> Explain:
    def planned(affinity: Collection[int], *pools: PoolRequest) -> str:
        topology = read_topology(affinity, system.root)
        budget = read_budget(affinity, topology.ids, system.root)
        return describe(plan(topology, budget, PlanRequest(pools or (PoolRequest("m"),))), budget)

    return planned


def front_ends(count: int) -> str:
    return f"  front ends: {count}, one for every 4 usable CPUs, at least 1, at most 8"


def quota(cpus: str, file: str, effect: str) -> str:
    return f"  quota of {cpus} CPUs in /sys/fs/cgroup/{file}: {effect}"


def test_container_of_one_cpu(system: FakeSystem, explain: Explain) -> None:
    system.cpus(cores=4)
    system.cgroup_v2("/", {"/": {"cpu.max": "max 100000"}})
    assert explain({2}).splitlines() == [
        "process     CPUs  threads  cores",
        "frontend 0  2     1        shared",
        "worker m 0  2     1        own",
        "because",
        "  CPUs 2: the affinity mask",
        NO_QUOTA,
        "  1 CPU on 1 core",
        front_ends(1),
    ]


def test_virtual_machine_of_two_cpus_without_smt(system: FakeSystem, explain: Explain) -> None:
    system.cpus(cores=2)
    assert explain({0, 1}, PoolRequest("m", instances=2)).splitlines() == [
        "process     CPUs  threads  cores",
        "frontend 0  0-1   1        shared",
        "worker m 0  0     1        own",
        "worker m 1  1     1        own",
        "because",
        "  CPUs 0-1: the affinity mask",
        NO_QUOTA,
        "  2 CPUs on 2 cores",
        front_ends(1),
    ]


@pytest.mark.parametrize("adjacent", [False, True])
def test_desktop_of_eight_cores_and_sixteen_threads(
    system: FakeSystem, explain: Explain, adjacent: bool
) -> None:
    system.cpus(cores=8, threads=2, adjacent=adjacent)
    assert explain(range(16)).splitlines() == [
        "process       CPUs  threads  cores",
        "frontend 0-3  0-15  1        shared",
        "worker m 0    0-15  8        own",
        "because",
        "  CPUs 0-15: the affinity mask",
        NO_QUOTA,
        "  16 CPUs on 8 cores: one thread per core, the SMT siblings serve the rest",
        front_ends(4),
    ]


def test_desktop_shared_out_in_whole_cores_however_they_are_numbered(
    system: FakeSystem, explain: Explain
) -> None:
    system.cpus(cores=8, threads=2)
    apart = explain(range(16), PoolRequest("m", instances=2)).splitlines()
    assert apart[2:4] == ["worker m 0    0-3,8-11   4        own", "worker m 1    4-7,12-15  4        own"]
    system.cpus(cores=8, threads=2, adjacent=True)
    adjacent = explain(range(16), PoolRequest("m", instances=2)).splitlines()
    assert adjacent[2:4] == ["worker m 0    0-7   4        own", "worker m 1    8-15  4        own"]


def test_two_sockets_of_56_cores_with_smt(system: FakeSystem, explain: Explain) -> None:
    system.cpus(packages=2, cores=56, threads=2)
    assert explain(range(224), PoolRequest("m", instances=2)).splitlines() == [
        "process       CPUs            threads  cores",
        "frontend 0-7  0-223           1        shared",
        "worker m 0    0-55,112-167    56       own",
        "worker m 1    56-111,168-223  56       own",
        "because",
        "  CPUs 0-223: the affinity mask",
        NO_QUOTA,
        "  224 CPUs on 112 cores: one thread per core, the SMT siblings serve the rest",
        front_ends(8),
    ]


def test_kubernetes_cpuset(system: FakeSystem, explain: Explain) -> None:
    # 3 and 11 are siblings; those of 4, 5 and 8 belong to somebody else.
    system.cpus(cores=8, threads=2)
    assert explain({3, 4, 5, 8, 11}).splitlines() == [
        "process     CPUs      threads  cores",
        "frontend 0  3-5,8,11  1        shared",
        "worker m 0  3-5,8,11  4        own",
        "because",
        "  CPUs 3-5,8,11: the affinity mask",
        NO_QUOTA,
        "  5 CPUs on 4 cores: one thread per core, the SMT siblings serve the rest",
        front_ends(1),
    ]


def test_nested_quota_of_two_and_a_half_cpus_on_a_host_of_64(system: FakeSystem, explain: Explain) -> None:
    system.cpus(cores=32, threads=2)
    system.cgroup_v2(
        "/kubepods.slice/pod7.slice/app.scope",
        {
            "/kubepods.slice": {"cpu.max": "6000000 100000"},
            "/kubepods.slice/pod7.slice": {"cpu.max": "250000 100000"},
            "/kubepods.slice/pod7.slice/app.scope": {"cpu.max": "max 100000"},
        },
    )
    assert explain(range(64), PoolRequest("a"), PoolRequest("b", instances=2)).splitlines() == [
        "process       CPUs  threads  cores",
        "frontend 0    0-63  1        shared",
        "worker a 0    0-63  2        shared",
        "worker b 0-1  0-63  1        shared",
        "because",
        "  CPUs 0-63: the affinity mask",
        quota("2.5", "kubepods.slice/pod7.slice/cpu.max", "2 of the CPUs at a time, rounded down"),
        "  64 CPUs on 32 cores: one thread per core, the SMT siblings serve the rest",
        front_ends(1),
        "  2 pools share all CPUs: each may use what the others leave idle",
    ]


def test_quota_on_v1(system: FakeSystem, explain: Explain) -> None:
    system.cpus(cores=16)
    files = {"cpu.cfs_quota_us": "600000", "cpu.cfs_period_us": "100000"}
    system.cgroup_v1("cpu,cpuacct", "/docker/4f", {"/": files}, mount_root="/docker/4f")
    assert explain(range(16)).splitlines() == [
        "process     CPUs  threads  cores",
        "frontend 0  0-15  1        shared",
        "worker m 0  0-15  6        own",
        "because",
        "  CPUs 0-15: the affinity mask",
        quota("6", "cpu,cpuacct/cpu.cfs_quota_us", "6 of the CPUs at a time, rounded down"),
        "  16 CPUs on 16 cores",
        front_ends(1),
    ]


def test_quota_below_one_cpu(system: FakeSystem, explain: Explain) -> None:
    system.cpus(cores=4)
    system.cgroup_v2("/", {"/": {"cpu.max": "50000 100000"}})
    assert explain(range(4)).splitlines() == [
        "process     CPUs  threads  cores",
        "frontend 0  0-3   1        shared",
        "worker m 0  0-3   1        own",
        "because",
        "  CPUs 0-3: the affinity mask",
        quota("0.5", "cpu.max", "less than one CPU, so even one thread will be throttled"),
        "  4 CPUs on 4 cores",
        front_ends(1),
    ]


def test_hidden_topology(explain: Explain) -> None:
    assert explain({0, 1, 2}).splitlines() == [
        "process     CPUs  threads  cores",
        "frontend 0  0-2   1        shared",
        "worker m 0  0-2   3        own",
        "because",
        "  CPUs 0-2: the affinity mask",
        NO_QUOTA,
        "  /sys hides the online CPUs: those of the affinity mask are taken for all there are",
        "  /sys hides which CPUs share a core: each of 0-2 counts as a core",
        "  3 CPUs on 3 cores",
        front_ends(1),
    ]


def test_offline_cpus(system: FakeSystem, explain: Explain) -> None:
    # All second siblings but one are off, as with SMT half switched off.
    system.cpus(cores=4, threads=2, offline=(4, 5, 6))
    assert explain(range(8)).splitlines() == [
        "process     CPUs   threads  cores",
        "frontend 0  0-3,7  1        shared",
        "worker m 0  0-3,7  4        own",
        "because",
        "  CPUs 0-3,7: the affinity mask 0-7 without 4-6, offline",
        NO_QUOTA,
        "  5 CPUs on 4 cores: one thread per core, the SMT siblings serve the rest",
        front_ends(1),
    ]


def test_this_machine() -> None:
    affinity = os.sched_getaffinity(0)
    topology = read_topology(affinity)
    budget = read_budget(affinity, topology.ids)
    (worker,) = plan(topology, budget, PlanRequest((PoolRequest("m"),))).pools["m"]
    assert set(worker.cpus) <= affinity
    assert 1 <= worker.threads <= budget.effective_cpus <= len(affinity)
