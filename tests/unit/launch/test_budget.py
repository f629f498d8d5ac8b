import os
from pathlib import Path

import pytest

from predictd.server.launch.budget import Budget, make_budget, read_affinity, read_budget
from predictd.server.launch.quota import Quota, read_quotas
from tests.fixtures.sysfs import FakeSystem

EIGHT = range(8)


def test_the_mask_without_a_quota(tmp_path: Path) -> None:
    assert read_budget({3, 4, 5}, EIGHT, tmp_path) == Budget(
        (3, 4, 5), None, 3, ("CPUs 3-5: the affinity mask", "no CPU quota in any visible cgroup")
    )


def test_offline_cpus_of_the_mask_do_not_count() -> None:
    budget = make_budget(range(8), {0, 2, 3}, [])
    assert (budget.cpus, budget.effective_cpus) == ((0, 2, 3), 3)
    assert budget.reasons[0] == "CPUs 0,2-3: the affinity mask 0-7 without 1,4-7, offline"


def test_a_made_up_list_of_online_cpus_does_not_leave_nothing() -> None:
    budget = make_budget({8, 9}, {0, 1}, [])
    assert budget.cpus == (8, 9)
    assert budget.reasons[0] == "CPUs 8-9: the affinity mask (none is listed as online, ignored)"


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="affinity mask is empty"):
        make_budget((), EIGHT, [])


@pytest.mark.parametrize(
    ("cpus", "effective", "throttled", "reason"),
    [
        (2.5, 2, True, "quota of 2.5 CPUs in f: 2 of the CPUs at a time, rounded down"),
        (7.65, 7, True, "quota of 7.65 CPUs in f: 7 of the CPUs at a time, rounded down"),
        (0.5, 1, True, "quota of 0.5 CPUs in f: less than one CPU, so even one thread will be throttled"),
        (1, 1, True, "quota of 1 CPUs in f: 1 of the CPUs at a time, rounded down"),
        (8, 8, False, "quota of 8 CPUs in f: no less than the CPUs can use"),
        (64, 8, False, "quota of 64 CPUs in f: no less than the CPUs can use"),
    ],
)
def test_a_quota_rounds_down_and_stays_a_fraction(
    cpus: float, effective: int, throttled: bool, reason: str
) -> None:
    budget = make_budget(EIGHT, EIGHT, [Quota(cpus, "f")])
    assert (budget.quota_cpus, budget.effective_cpus, budget.throttled) == (cpus, effective, throttled)
    assert budget.cpus == tuple(EIGHT)
    assert budget.reasons[1] == reason


def test_half_a_cpu_on_one_cpu_is_throttled() -> None:
    assert make_budget({0}, {0}, [Quota(0.5, "f")]).throttled


@pytest.mark.parametrize("tightest", ["/", "/kubepods", "/kubepods/pod7", "/kubepods/pod7/app"])
def test_the_tightest_of_all_ancestors_wins_on_v2(tmp_path: Path, tightest: str) -> None:
    groups = {group: {"cpu.max": "600000 100000"} for group in ("/", "/kubepods", "/kubepods/pod7")}
    groups["/kubepods/pod7/app"] = {"cpu.max": "max 100000"}
    groups[tightest] = {"cpu.max": "125000 50000"}
    FakeSystem(tmp_path).cgroup_v2("/kubepods/pod7/app", groups)
    budget = read_budget(EIGHT, EIGHT, tmp_path)
    assert budget.quota_cpus == 2.5
    assert f"/sys/fs/cgroup{tightest.rstrip('/')}/cpu.max" in budget.reasons[1]


@pytest.mark.parametrize("tightest", ["/", "/docker", "/docker/4f"])
def test_the_tightest_of_all_ancestors_wins_on_v1(tmp_path: Path, tightest: str) -> None:
    none = {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}
    groups = dict.fromkeys(("/", "/docker", "/docker/4f"), none)
    groups[tightest] = {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}
    FakeSystem(tmp_path).cgroup_v1("cpu,cpuacct", "/docker/4f", groups)
    budget = read_budget(EIGHT, EIGHT, tmp_path)
    assert (budget.quota_cpus, budget.effective_cpus) == (3.0, 3)


def test_on_a_hybrid_machine_the_quota_of_v1_is_seen(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    quota = {"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000"}
    system.cgroup_v1("cpu", "/c", {"/c": quota})
    system.cgroup_v2("/", {"/": {"cgroup.procs": "1"}}, point="/sys/fs/cgroup/unified")
    assert read_quotas(tmp_path) == ((Quota(1.5, "/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us"),), ())


@pytest.mark.parametrize("text", ["many 100000", "100000", "100000 0", "0 100000", ""])
def test_a_quota_that_makes_no_sense_is_named_and_the_others_count(tmp_path: Path, text: str) -> None:
    FakeSystem(tmp_path).cgroup_v2("/a", {"/": {"cpu.max": "200000 100000"}, "/a": {"cpu.max": text}})
    budget = read_budget(EIGHT, EIGHT, tmp_path)
    assert budget.quota_cpus == 2
    assert "the CPU quota of /sys/fs/cgroup/a is unreadable and was ignored" in budget.reasons[2]


def test_a_cpuset_narrows_the_mask_and_is_named(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cgroup_v2("/pod", {"/pod": {"cpuset.cpus.effective": "2-3"}})
    budget = read_budget(EIGHT, EIGHT, tmp_path)
    assert budget.cpus == (2, 3)
    assert "cpuset 2-3 in /sys/fs/cgroup/pod/cpuset.cpus.effective" in budget.reasons


def test_a_cpuset_of_v1_counts_too(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v1("cpuset", "/pod", {"/pod": {"cpuset.effective_cpus": "5"}})
    assert read_budget(EIGHT, EIGHT, tmp_path).cpus == (5,)


@pytest.mark.parametrize(
    ("text", "note"), [("9", "has no CPU of the affinity mask and was ignored"), ("x", "is unreadable")]
)
def test_a_cpuset_that_cannot_be_is_ignored_and_said(text: str, note: str, tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v2("/", {"/": {"cpuset.cpus.effective": text}})
    budget = read_budget(EIGHT, EIGHT, tmp_path)
    assert budget.cpus == tuple(EIGHT)
    assert any(note in reason for reason in budget.reasons)


def test_the_tightest_memory_limit_is_part_of_the_budget(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.meminfo(total_bytes=64 << 30, available_bytes=32 << 30)
    assert read_budget(EIGHT, EIGHT, tmp_path).memory_bytes == 64 << 30
    system.cgroup_v2("/a/b", {"/a": {"memory.max": str(3 << 29)}, "/a/b": {"memory.max": "max"}})
    budget = read_budget(EIGHT, EIGHT, tmp_path)
    assert budget.memory_bytes == 3 << 29
    assert "memory: 1.5 GiB, /sys/fs/cgroup/a/memory.max" in budget.reasons


def test_an_unreadable_memory_limit_is_said(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v2("/", {"/": {"memory.max": "much"}})
    budget = read_budget(EIGHT, EIGHT, tmp_path)
    assert budget.memory_bytes is None
    assert any(reason.startswith("the memory limit is unreadable") for reason in budget.reasons)


@pytest.mark.parametrize(("throttled", "warned"), [(0, False), (9, False), (10, True)])
def test_a_quota_that_has_hurt_is_warned_about(throttled: int, warned: bool, tmp_path: Path) -> None:
    stat = f"usage_usec 5\nnr_periods 1000\nnr_throttled {throttled}"
    FakeSystem(tmp_path).cgroup_v2("/", {"/": {"cpu.max": "200000 100000", "cpu.stat": stat}})
    warnings = read_budget(EIGHT, EIGHT, tmp_path).warnings
    assert any(f"in {throttled} of 1000 periods" in warning for warning in warnings) == warned
    assert len(warnings) == warned


def test_the_affinity_of_a_process_below_another_root(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    with pytest.raises(ValueError, match="no CPUs in proc/self/status"):
        read_affinity(tmp_path)
    system.cpus(cores=4)
    assert read_affinity(tmp_path) == (0, 1, 2, 3)
    system.allowed("1-2")
    assert read_affinity(tmp_path) == (1, 2)
    assert read_affinity() == tuple(sorted(os.sched_getaffinity(0)))
