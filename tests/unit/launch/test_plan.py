import pytest

from predictd.server.launch.budget import make_budget
from predictd.server.launch.facilities import Facilities
from predictd.server.launch.plan import ChildPlan, LaunchPlan, PlanRequest, PoolRequest, RunningPool, plan
from predictd.server.launch.quota import Quota
from predictd.server.launch.topology import Cpu, Topology


def machine(cores: int, threads: int = 1) -> Topology:
    """Core c has the CPUs c, c + cores, and so on."""
    return Topology(tuple(Cpu(cpu, cpu % cores) for cpu in range(cores * threads)))


def planned(
    topology: Topology,
    *pools: PoolRequest,
    quota: float | None = None,
    frontends: int | None = None,
    **exported: str,
) -> LaunchPlan:
    budget = make_budget(topology.ids, topology.ids, [] if quota is None else [Quota(quota, "cpu.max")])
    return plan(topology, budget, PlanRequest(pools, frontends, exported))


def masks(children: tuple[ChildPlan, ...]) -> list[tuple[int, ...]]:
    return [child.cpus for child in children]


POOL = PoolRequest("m")


@pytest.mark.parametrize(
    ("cpus", "count"), [(1, 1), (2, 1), (4, 1), (7, 1), (8, 2), (16, 4), (32, 8), (64, 8), (224, 8)]
)
def test_front_ends_grow_with_the_cpus_up_to_a_limit(cpus: int, count: int) -> None:
    assert len(planned(machine(cpus), POOL).frontends) == count


def test_front_ends_follow_the_quota_and_an_explicit_number_wins() -> None:
    assert len(planned(machine(64), POOL, quota=2.5).frontends) == 1
    assert len(planned(machine(64), POOL, frontends=3).frontends) == 3


def test_more_front_ends_than_cpus_are_warned_about() -> None:
    assert planned(machine(1), POOL, frontends=2).warnings == ("2 front ends for 1 usable CPU",)


def test_a_front_end_floats_over_the_budget_with_one_thread() -> None:
    (frontend,) = planned(machine(4), POOL).frontends
    assert (frontend.cpus, frontend.threads, frontend.owns_cores) == ((0, 1, 2, 3), 1, False)


def test_one_worker_gets_all_cpus_and_one_thread_per_core() -> None:
    (worker,) = planned(machine(8, threads=2), POOL).pools["m"]
    assert (worker.cpus, worker.threads, worker.owns_cores) == (tuple(range(16)), 8, True)
    assert worker.environment["OMP_NUM_THREADS"] == "8"


def test_workers_share_out_whole_cores() -> None:
    workers = planned(machine(4, threads=2), PoolRequest("m", instances=2)).pools["m"]
    assert masks(workers) == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert [(worker.threads, worker.owns_cores) for worker in workers] == [(2, True)] * 2


def test_workers_of_a_pool_are_alike_and_what_is_left_over_is_free() -> None:
    workers = planned(machine(7), PoolRequest("m", instances=3)).pools["m"]
    assert masks(workers) == [(0, 1), (2, 3), (4, 5)]


def test_more_threads_than_cores_take_the_siblings_too() -> None:
    workers = planned(machine(4, threads=2), PoolRequest("m", instances=2, threads=4)).pools["m"]
    assert masks(workers) == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert [worker.threads for worker in workers] == [4, 4]


def test_more_workers_than_cores_take_every_core_once_before_any_twice() -> None:
    workers = planned(machine(2, threads=2), PoolRequest("m", instances=3)).pools["m"]
    assert masks(workers) == [(0,), (1,), (2,)]
    assert all(worker.owns_cores and worker.threads == 1 for worker in workers)


def test_more_workers_than_cpus_share_them_and_are_warned_about() -> None:
    result = planned(machine(2), PoolRequest("m", instances=4))
    workers = result.pools["m"]
    assert masks(workers) == [(0, 1)] * 4
    assert not any(worker.owns_cores for worker in workers)
    assert {worker.environment["OMP_WAIT_POLICY"] for worker in workers} == {"PASSIVE"}
    assert result.warnings == ("pool m: 4 workers of 1 thread on 2 usable CPUs: oversubscribed",)


def test_workers_whose_threads_do_not_fit_side_by_side_share() -> None:
    result = planned(machine(4), PoolRequest("m", instances=2, threads=3))
    assert masks(result.pools["m"]) == [(0, 1, 2, 3)] * 2
    assert "CPUs 0-3: all CPUs: 2 workers of 3 threads do not fit side by side on 4 CPUs" in (
        result.pools["m"][0].reasons
    )
    assert result.warnings == ("pool m: 2 workers of 3 threads on 4 usable CPUs: oversubscribed",)


def test_threads_are_cut_to_what_can_run() -> None:
    result = planned(machine(4), PoolRequest("m", threads=16))
    assert result.pools["m"][0].threads == 4
    assert result.warnings == ("pool m: threads: 4 instead of the 16 asked for, as no more can run at once",)


def test_explicit_threads_of_one_worker_win() -> None:
    (worker,) = planned(machine(8), PoolRequest("m", threads=3)).pools["m"]
    assert (worker.threads, len(worker.cpus)) == (3, 8)
    assert "threads: 3, as asked" in worker.reasons


def test_several_pools_share_everything() -> None:
    result = planned(machine(4, threads=2), PoolRequest("a"), PoolRequest("b", instances=2))
    (a,), b = result.pools["a"], result.pools["b"]
    assert masks((a, *b)) == [tuple(range(8))] * 3
    assert (a.threads, b[0].threads) == (4, 2)
    assert not any(child.owns_cores for child in (a, *b))
    assert "2 pools share all CPUs: each may use what the others leave idle" in result.reasons


def test_a_quota_keeps_the_mask_and_bounds_the_threads() -> None:
    workers = planned(machine(64), PoolRequest("m", instances=2), quota=5.5).pools["m"]
    assert masks(workers) == [tuple(range(64))] * 2
    assert [(worker.threads, worker.owns_cores) for worker in workers] == [(2, False)] * 2


def test_a_lone_worker_under_a_quota_owns_its_cores_but_does_not_spend_the_quota_on_waiting() -> None:
    (worker,) = planned(machine(4), POOL, quota=0.5).pools["m"]
    assert (worker.cpus, worker.threads, worker.owns_cores) == ((0, 1, 2, 3), 1, True)
    assert worker.environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_quota_above_the_cpus_changes_nothing() -> None:
    pool = PoolRequest("m", instances=2)
    assert planned(machine(4), pool, quota=9).pools == planned(machine(4), pool).pools


@pytest.mark.parametrize(("threads", "expected"), [(None, 4), (12, 12)])
def test_a_shared_pool_has_few_threads_for_each_of_its_many_lanes(threads: int | None, expected: int) -> None:
    (worker,) = planned(machine(16), PoolRequest("m", threads=threads, shared=True)).pools["m"]
    assert worker.threads == expected


def test_a_shared_pool_on_a_small_machine_is_like_any_other() -> None:
    (worker,) = planned(machine(2), PoolRequest("m", shared=True)).pools["m"]
    assert worker.threads == 2


def test_exported_variables_reach_the_plan() -> None:
    result = planned(machine(4), POOL, OMP_NUM_THREADS="3", OMP_PROC_BIND="CLOSE", HOME="/root")
    (worker,) = result.pools["m"]
    assert worker.environment["OMP_NUM_THREADS"] == "3"
    assert "HOME" not in worker.environment
    assert worker.threads == 4
    assert any(r.startswith("OMP_NUM_THREADS=3: exported by the user and kept") for r in worker.reasons)
    assert any(w.startswith("OMP_PROC_BIND=CLOSE is exported and kept") for w in result.warnings)


def test_without_pools_there_are_only_front_ends() -> None:
    result = planned(machine(2))
    assert (len(result.frontends), dict(result.pools)) == (1, {})


def sockets(nodes: int, cores: int, threads: int = 1) -> Topology:
    """Nodes of cores each; core c has the CPUs c, c + all cores, and so on."""
    total = nodes * cores
    return Topology(
        tuple(Cpu(cpu, cpu % total, node=cpu % total // cores, l3=1) for cpu in range(total * threads))
    )


def test_each_node_has_a_worker_unless_told_otherwise() -> None:
    workers = planned(sockets(2, 4, threads=2), POOL).pools["m"]
    assert masks(workers) == [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]
    assert [(worker.threads, worker.numa_nodes) for worker in workers] == [(4, (0,)), (4, (1,))]


def test_one_worker_as_asked_uses_all_nodes() -> None:
    (worker,) = planned(sockets(2, 4), PoolRequest("m", instances=1)).pools["m"]
    assert (worker.cpus, worker.threads, worker.numa_nodes) == (tuple(range(8)), 8, ())


def test_few_threads_stay_on_one_node_and_many_take_both() -> None:
    few = planned(sockets(2, 4), PoolRequest("m", instances=1, threads=3)).pools["m"]
    assert masks(few) == [(0, 1, 2, 3)]
    many = planned(sockets(2, 4), PoolRequest("m", threads=6)).pools["m"]
    assert [(worker.cpus, worker.threads) for worker in many] == [(tuple(range(8)), 6)]


def test_three_workers_on_two_nodes_leave_cores_rather_than_their_node() -> None:
    workers = planned(sockets(2, 4), PoolRequest("m", instances=3)).pools["m"]
    assert masks(workers) == [(0, 1), (2, 3), (4, 5)]


def test_a_lone_core_of_another_node_does_not_lure_a_worker_over() -> None:
    topology = sockets(2, 4)
    budget = make_budget((3, 4, 5, 6, 7), topology.ids, [])
    (worker,) = plan(topology, budget, PlanRequest((POOL,))).pools["m"]
    assert (worker.cpus, worker.threads, worker.numa_nodes) == ((4, 5, 6, 7), 4, (1,))


def test_many_pools_take_the_nodes_in_turn() -> None:
    pools = [PoolRequest(name) for name in "abcdefgh"]
    result = planned(sockets(2, 4), *pools)
    assert [workers[0].numa_nodes for workers in result.pools.values()] == [(0,), (1,)] * 4
    assert {len(workers) for workers in result.pools.values()} == {1}


def test_few_pools_have_a_worker_on_each_node_and_share_it() -> None:
    result = planned(sockets(2, 4), PoolRequest("a"), PoolRequest("b"))
    for workers in result.pools.values():
        assert masks(workers) == [(0, 1, 2, 3), (4, 5, 6, 7)]
        assert not any(worker.owns_cores for worker in workers)


def test_weights_divide_whole_cores() -> None:
    a, b = PoolRequest("a", cpu_weight=300), PoolRequest("b", cpu_weight=100)
    result = planned(machine(4, threads=2), a, b)
    assert masks(result.pools["a"]) == [(0, 1, 2, 4, 5, 6)]
    assert masks(result.pools["b"]) == [(3, 7)]
    assert all(worker.owns_cores and worker.spin for worker in result.workers)
    assert "4 cores by cpu_weight: a 3 (weight 300), b 1 (weight 100)" in result.reasons


def test_a_pool_without_a_weight_has_the_default_one_beside_others() -> None:
    result = planned(
        machine(4), PoolRequest("a"), PoolRequest("b", cpu_weight=300, origins={"cpu_weight": "b.toml:2"})
    )
    assert [len(workers[0].cpus) for workers in result.pools.values()] == [1, 3]
    assert (
        "4 cores by cpu_weight: a 1 (weight 100, the default), b 3 (weight 300, b.toml:2)" in result.reasons
    )


def test_more_pools_than_cores_cut_cores_in_two_and_are_warned_about() -> None:
    pools = [PoolRequest(name, cpu_weight=1) for name in "abc"]
    result = planned(machine(2, threads=2), *pools)
    assert [workers[0].cpus for workers in result.pools.values()] == [(0, 1), (2,), (3,)]
    assert any("divided among pools" in warning for warning in result.warnings)


def test_more_pools_than_cpus_share_them_whatever_they_weigh() -> None:
    pools = [PoolRequest(name, cpu_weight=7) for name in "abc"]
    result = planned(machine(2), *pools)
    assert [workers[0].cpus for workers in result.pools.values()] == [(0, 1)] * 3
    assert "3 pools on 2 CPUs: too few to divide by cpu_weight, so all pools share them" in result.reasons


def test_under_a_quota_weights_divide_the_threads() -> None:
    a, b = PoolRequest("a", cpu_weight=300), PoolRequest("b", cpu_weight=100)
    result = planned(machine(64), a, b, quota=8.5)
    assert [workers[0].threads for workers in result.pools.values()] == [6, 2]
    assert [workers[0].cpus for workers in result.pools.values()] == [tuple(range(64))] * 2
    assert "8 threads of the quota by cpu_weight: a 6 (weight 300), b 2 (weight 100)" in result.reasons
    few = planned(machine(64), a, b, quota=1.5)
    assert "2 pools under a quota for 1 thread: too few to divide by cpu_weight" in few.reasons


def test_a_pool_that_comes_later_knows_that_others_run_on_its_cpus() -> None:
    topology = machine(4)
    budget = make_budget(topology.ids, topology.ids, [])
    running = RunningPool(PoolRequest("a"), frozenset(range(4)))
    late = plan(topology, budget, PlanRequest((PoolRequest("b"),), beside=(running,)))
    (worker,) = late.pools["b"]
    assert (worker.cpus, worker.owns_cores, worker.spin) == ((0, 1, 2, 3), False, False)


def test_what_all_pools_want_together_is_a_reason_by_default_and_a_warning_if_asked_for() -> None:
    default = planned(machine(2), PoolRequest("a"), PoolRequest("b"))
    assert "2 pools have 4 threads on 2 usable CPUs: enough while not all are busy" in default.reasons
    assert default.warnings == ()
    asked = planned(machine(2), PoolRequest("a", instances=2), PoolRequest("b", threads=1))
    assert asked.warnings == ("2 pools with 3 threads as asked on 2 usable CPUs: oversubscribed",)


def test_threads_on_siblings_are_warned_about() -> None:
    result = planned(machine(4, threads=2), PoolRequest("m", threads=6))
    assert result.warnings == (
        "pool m: 1 worker of 6 threads on 4 cores: SMT siblings compute beside each other, slower than a core each",
    )


def test_a_spin_that_is_asked_for_reaches_the_environment() -> None:
    asked = planned(machine(4), PoolRequest("m", spin=False, origins={"spin": "m/model.toml:3"}))
    (worker,) = asked.pools["m"]
    assert worker.environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "waiting: sleeps, as m/model.toml:3 says" in worker.reasons


def test_the_origin_of_a_number_stands_in_its_reason() -> None:
    origins = {"instances": "--instances", "threads": "m/model.toml:2"}
    (worker, _) = planned(machine(4), PoolRequest("m", 2, 1, origins=origins)).pools["m"]
    assert {"workers: 2, as --instances says", "threads: 1, as m/model.toml:2 says"} <= set(worker.reasons)


def test_what_of_the_machine_costs_time_is_warned_about() -> None:
    topology = machine(1)
    slow = Facilities(transparent_hugepages="never", governor="performance,powersave")
    request = PlanRequest((POOL,), facilities=slow)
    warnings = plan(topology, make_budget(topology.ids, topology.ids, []), request).warnings
    assert [warning.split(":")[0] for warning in warnings] == [
        "no huge pages",
        "the CPU frequency governor is powersave",
    ]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (PlanRequest((), frontends=0), "frontends must be at least 1, not 0"),
        (PlanRequest((PoolRequest("m", instances=0),)), "instances of m must be at least 1, not 0"),
        (PlanRequest((PoolRequest("m", threads=-1),)), "threads of m must be at least 1, not -1"),
        (PlanRequest((POOL, POOL)), "two pools have one name: m, m"),
    ],
)
def test_requests_that_make_no_sense_are_refused(request_: PlanRequest, message: str) -> None:
    topology = machine(2)
    with pytest.raises(ValueError, match=message):
        plan(topology, make_budget(topology.ids, topology.ids, []), request_)
