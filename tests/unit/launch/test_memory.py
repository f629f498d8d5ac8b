from pathlib import Path

import pytest

from predictd.server.launch.memory import Headroom, MemoryHeadroom, headroom_bytes
from tests.fixtures.sysfs import FakeSystem

MIB = 1 << 20
GIB = 1 << 30


def v2(limit: int | str, usage: int, inactive: int = 0) -> dict[str, str]:
    return {
        "memory.max": str(limit),
        "memory.current": str(usage),
        "memory.stat": f"anon 1\nactive_file 4096\ninactive_file {inactive}\nfile 9",
    }


def v1(limit: int, usage: int, inactive: int = 0) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": str(limit),
        "memory.usage_in_bytes": str(usage),
        "memory.stat": f"inactive_file 7\ntotal_inactive_file {inactive}\ntotal_active_file 9",
    }


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    fake = FakeSystem(tmp_path)
    fake.meminfo(total_bytes=16 * GIB, available_bytes=8 * GIB)
    return fake


def test_without_limits_the_machine_decides(system: FakeSystem) -> None:
    assert headroom_bytes(system.root) == Headroom(8 * GIB, 16 * GIB, "/proc/meminfo")


def test_v2_counts_cache_that_can_be_dropped(system: FakeSystem) -> None:
    system.cgroup_v2("/app", {"/app": v2(2 * GIB, 1 * GIB, 256 * MIB)})
    assert headroom_bytes(system.root) == Headroom(
        1 * GIB + 256 * MIB, 2 * GIB, "/sys/fs/cgroup/app/memory.max"
    )


def test_the_tightest_ancestor_wins_even_with_the_larger_limit(system: FakeSystem) -> None:
    system.cgroup_v2("/pod/app", {"/pod": v2(4 * GIB, 4 * GIB - MIB), "/pod/app": v2(1 * GIB, 0)})
    assert headroom_bytes(system.root) == Headroom(MIB, 4 * GIB, "/sys/fs/cgroup/pod/memory.max")


def test_a_group_without_a_limit_is_passed_over(system: FakeSystem) -> None:
    system.cgroup_v2("/pod/app", {"/pod": v2("max", 15 * GIB), "/pod/app": v2("max", 15 * GIB)})
    assert headroom_bytes(system.root).limited_by == "/proc/meminfo"


def test_v1_uses_the_totals_of_the_subtree(system: FakeSystem) -> None:
    system.cgroup_v1("memory", "/app", {"/app": v1(2 * GIB, 1 * GIB, 64 * MIB)})
    assert headroom_bytes(system.root) == Headroom(
        1 * GIB + 64 * MIB, 2 * GIB, "/sys/fs/cgroup/memory/app/memory.limit_in_bytes"
    )


def test_v1_shows_no_limit_as_a_huge_number(system: FakeSystem) -> None:
    system.cgroup_v1("memory", "/app", {"/": v1((1 << 63) - 4096, GIB), "/app": v1((1 << 63) - 65536, GIB)})
    assert headroom_bytes(system.root).limited_by == "/proc/meminfo"


def test_over_the_limit_nothing_is_left(system: FakeSystem) -> None:
    system.cgroup_v2("/app", {"/app": v2(GIB, 2 * GIB)})
    assert headroom_bytes(system.root).bytes == 0


def test_a_limit_above_what_the_machine_has_does_not_promise_it(system: FakeSystem) -> None:
    system.cgroup_v2("/app", {"/app": v2(64 * GIB, 0)})
    assert headroom_bytes(system.root).bytes == 8 * GIB


def test_each_read_sees_the_present_and_the_files_are_found_once(system: FakeSystem) -> None:
    system.cgroup_v2("/app", {"/app": v2("max", GIB)})
    headroom = MemoryHeadroom(system.root)
    assert headroom.read().bytes == 8 * GIB
    for file in ("cgroup", "mountinfo"):
        (system.root / "proc/self" / file).unlink()
    system.write("/sys/fs/cgroup/app/memory.max", str(3 * GIB))
    assert headroom.read().bytes == 2 * GIB
    system.write("/sys/fs/cgroup/app/memory.current", str(2 * GIB))
    assert headroom.read().bytes == GIB


def test_a_machine_that_does_not_say_what_is_available_is_an_error(system: FakeSystem) -> None:
    system.write("/proc/meminfo", "MemTotal: 1 kB")
    with pytest.raises(ValueError, match="does not show MemAvailable:"):
        headroom_bytes(system.root)


def test_this_machine_has_something_left() -> None:
    headroom = headroom_bytes()
    assert 0 < headroom.bytes <= headroom.limit_bytes
