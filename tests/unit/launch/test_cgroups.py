from pathlib import Path

from predictd.server.launch.cgroups import cgroups_of
from tests.fixtures.sysfs import FakeSystem


def names(controller: str, root: Path) -> list[str]:
    return [group.name for group in cgroups_of(controller, root)]


def test_v2_goes_from_the_own_group_up_to_the_mount(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v2("/a/b", {"/a/b": {"cpu.max": "max 100000"}})
    assert names("cpu", tmp_path) == ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]
    assert cgroups_of("cpu", tmp_path)[0].directory == tmp_path / "sys/fs/cgroup/a/b"


def test_v1_takes_the_mount_of_the_controller(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cgroup_v1("memory", "/m", {"/m": {"memory.stat": ""}})
    system.cgroup_v1("cpu,cpuacct", "/c", {"/c": {"cpu.shares": "1024"}})
    assert names("cpu", tmp_path) == ["/sys/fs/cgroup/cpu,cpuacct/c", "/sys/fs/cgroup/cpu,cpuacct"]
    assert names("memory", tmp_path) == ["/sys/fs/cgroup/memory/m", "/sys/fs/cgroup/memory"]


def test_a_hybrid_machine_shows_both(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cgroup_v1("cpu", "/c", {"/c": {"cpu.shares": "1024"}})
    system.cgroup_v2("/u", {"/u": {"cgroup.procs": "1"}}, point="/sys/fs/cgroup/unified")
    assert names("cpu", tmp_path) == [
        "/sys/fs/cgroup/cpu/c",
        "/sys/fs/cgroup/cpu",
        "/sys/fs/cgroup/unified/u",
        "/sys/fs/cgroup/unified",
    ]


def test_a_container_sees_its_own_group_as_the_mount(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v1(
        "cpu", "/docker/4f/app", {"/app": {"cpu.shares": "2"}}, mount_root="/docker/4f"
    )
    assert names("cpu", tmp_path) == ["/sys/fs/cgroup/cpu/app", "/sys/fs/cgroup/cpu"]


def test_a_folder_with_the_same_beginning_is_not_an_ancestor(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v1("cpu", "/docker/4f5", {"/": {"cpu.shares": "2"}}, mount_root="/docker/4f")
    assert names("cpu", tmp_path) == ["/sys/fs/cgroup/cpu"]


def test_a_path_outside_the_namespace_leaves_the_mount_point(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v2("/../sibling", {"/": {"cpu.max": "max 100000"}})
    assert names("cpu", tmp_path) == ["/sys/fs/cgroup"]


def test_of_two_mounts_the_one_with_more_ancestors_counts(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cgroup_v2("/a/b", {"/": {"cpu.max": "max 1"}}, point="/run/part", mount_root="/a/b")
    system.cgroup_v2("/a/b", {"/a/b": {"cpu.max": "max 1"}})
    assert names("cpu", tmp_path) == ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]


def test_groups_that_are_gone_are_left_out(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v2("/a/gone (deleted)", {"/a": {"cpu.max": "max 100000"}})
    assert names("cpu", tmp_path) == ["/sys/fs/cgroup/a", "/sys/fs/cgroup"]


def test_spaces_in_the_mount_point_and_colons_in_the_path(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cgroup_v2("/a:b", {"/a:b": {"cpu.max": "max 100000"}}, point="/mnt/my groups")
    assert names("cpu", tmp_path) == ["/mnt/my groups/a:b", "/mnt/my groups"]


def test_nothing_is_mounted(tmp_path: Path) -> None:
    assert cgroups_of("cpu", tmp_path) == ()
    FakeSystem(tmp_path).write("/proc/self/cgroup", "0::/a")
    assert cgroups_of("cpu", tmp_path) == ()
