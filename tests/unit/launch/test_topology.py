from pathlib import Path

from predictd.server.launch.topology import Cpu, Topology, read_topology
from tests.fixtures.sysfs import FakeSystem


def test_siblings_numbered_apart_share_a_core(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=2, threads=2)
    topology = read_topology(range(4), tmp_path)
    assert topology == Topology((Cpu(0, 0), Cpu(1, 1), Cpu(2, 0), Cpu(3, 1)))


def test_siblings_numbered_side_by_side_share_a_core(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=2, threads=2, adjacent=True)
    assert [cpu.core for cpu in read_topology(range(4), tmp_path).cpus] == [0, 0, 2, 2]


def test_cores_of_two_packages_are_told_apart(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(packages=2, cores=2, threads=2)
    topology = read_topology(range(8), tmp_path)
    assert [(cpu.core, cpu.package, cpu.node) for cpu in topology.cpus[:4]] == [
        (0, 0, 0),
        (1, 0, 0),
        (2, 1, 1),
        (3, 1, 1),
    ]
    assert topology.cores(range(8)) == ((0, 4), (1, 5), (2, 6), (3, 7))


def test_old_kernels_name_the_siblings_file_differently(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=1, threads=2)
    for file in tmp_path.rglob("core_cpus_list"):
        file.unlink()
    assert read_topology({0, 1}, tmp_path).cores({0, 1}) == ((0, 1),)


def test_offline_cpus_are_not_there(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=4, threads=2, offline=(1, 4))
    topology = read_topology(range(8), tmp_path)
    assert topology.ids == (0, 2, 3, 5, 6, 7)
    assert topology.cores(topology.ids) == ((0,), (2, 6), (3, 7), (5,))
    assert topology.reasons == ()


def test_cores_of_one_node_stand_together_whatever_their_numbers(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cpus(cores=4)
    system.write("/sys/devices/system/node/node0/cpulist", "0,2")
    system.write("/sys/devices/system/node/node1/cpulist", "1,3")
    system.write("/sys/devices/system/node/has_memory", "0-1")
    assert read_topology(range(4), tmp_path).cores(range(4)) == ((0,), (2,), (1,), (3,))


def test_a_node_with_a_number_of_two_digits_and_one_without_cpus(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cpus(cores=2)
    system.write("/sys/devices/system/node/node0/cpulist", "0")
    system.write("/sys/devices/system/node/node1/cpulist", "")
    system.write("/sys/devices/system/node/node10/cpulist", "1")
    system.write("/sys/devices/system/node/has_memory", "0-1,10")
    assert [cpu.node for cpu in read_topology({0, 1}, tmp_path).cpus] == [0, 10]


def test_an_unknown_package_counts_as_the_first(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cpus(cores=1)
    system.write("/sys/devices/system/cpu/cpu0/topology/physical_package_id", "-1")
    assert read_topology({0}, tmp_path).cpus == (Cpu(0, 0, package=0),)


def test_without_sys_the_affinity_mask_is_all_there_is(tmp_path: Path) -> None:
    topology = read_topology({5, 2}, tmp_path)
    assert topology.cpus == (Cpu(2, 2), Cpu(5, 5))
    assert topology.reasons == (
        "/sys hides the online CPUs: those of the affinity mask are taken for all there are",
        "/sys hides which CPUs share a core: each of 2,5 counts as a core",
        "/sys hides the caches of 2,5: a NUMA node counts as one L3 cache there",
    )


def test_hidden_siblings_of_some_cpus_are_named(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=2, threads=2)
    for name in ("core_cpus_list", "thread_siblings_list"):
        (tmp_path / "sys/devices/system/cpu/cpu3/topology" / name).unlink()
    topology = read_topology(range(4), tmp_path)
    assert topology.cores(range(4)) == ((0, 2), (1,), (3,))
    assert topology.reasons == ("/sys hides which CPUs share a core: each of 3 counts as a core",)


def test_only_the_given_cpus_are_grouped_and_a_stranger_is_its_own_core() -> None:
    topology = Topology((Cpu(0, 0), Cpu(1, 0), Cpu(2, 2), Cpu(3, 2)))
    assert topology.cores([3, 1, 2, 9]) == ((1,), (2, 3), (9,))


def test_cores_behind_one_cache_stand_together(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=4, caches=2, threads=2)
    topology = read_topology(range(8), tmp_path)
    assert [cpu.l3 for cpu in topology.cpus] == [0, 0, 2, 2] * 2
    assert topology.by_cache(topology.cores(range(8))) == (((0, 4), (1, 5)), ((2, 6), (3, 7)))


def test_a_processor_without_l3_cache_is_no_riddle(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=4, caches=0)
    topology = read_topology(range(4), tmp_path)
    assert ({cpu.l3 for cpu in topology.cpus}, topology.reasons) == ({0}, ())


def test_the_l3_cache_is_known_by_its_level_not_by_its_number(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cpus(cores=2)
    for cpu in (0, 1):
        folder = f"/sys/devices/system/cpu/cpu{cpu}/cache"
        system.write(f"{folder}/index3/level", "4")
        system.write(f"{folder}/index2/level", "3")
        system.write(f"{folder}/index2/shared_cpu_list", str(cpu))
    assert [cpu.l3 for cpu in read_topology({0, 1}, tmp_path).cpus] == [0, 1]


def test_slow_cores_come_last_and_are_named(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=2, threads=2, efficient=2)
    topology = read_topology(range(6), tmp_path)
    assert [cpu.id for cpu in topology.cpus if cpu.efficient] == [4, 5]
    assert topology.cores(range(6)) == ((0, 2), (1, 3), (4,), (5,))
    assert topology.reasons == (
        "hybrid: CPUs 0-3 are on P cores, 4-5 on E cores, by /sys/devices/cpu_core/cpus",
    )


def test_slow_cores_are_known_by_their_capacity_where_it_differs_much(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cpus(cores=4)
    # The first two differ as much as cores of one kind do.
    for cpu, capacity in enumerate((1024, 970, 600, 446)):
        system.write(f"/sys/devices/system/cpu/cpu{cpu}/cpu_capacity", str(capacity))
    assert [cpu.efficient for cpu in read_topology(range(4), tmp_path).cpus] == [False, False, True, True]


def test_a_guest_of_slow_cores_only_has_no_slow_ones(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cpus(cores=2)
    system.write("/sys/devices/cpu_core/cpus", "8-15")
    assert [cpu.efficient for cpu in read_topology({0, 1}, tmp_path).cpus] == [False, False]


def test_a_node_without_memory_counts_as_the_nearest_one_with(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cpus(packages=3, cores=1, memory={0, 2})
    system.write("/sys/devices/system/node/node1/distance", "32 10 21")
    topology = read_topology(range(3), tmp_path)
    assert [cpu.node for cpu in topology.cpus] == [0, 2, 2]
    assert topology.nodes == (0, 2)
    assert topology.reasons == ("NUMA node 1 has no memory: its CPUs count as those of node 2",)


def test_memory_that_the_cpuset_forbids_is_as_good_as_none(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.cpus(packages=2, cores=1)
    system.allowed("0-1", memory="1")
    topology = read_topology(range(2), tmp_path)
    assert topology.nodes == (1,)
    assert topology.reasons == (
        "NUMA node 0 has no memory that this process may use: its CPUs count as those of node 1",
    )


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    FakeSystem(tmp_path).cpus(cores=1)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_bytes(b"Name:\t\xff\nMems_allowed_list:\t0\n")
    assert read_topology({0}, tmp_path).nodes == (0,)
