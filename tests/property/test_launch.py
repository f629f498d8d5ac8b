"""What holds of every plan, whatever the machine and the request."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.launch.budget import Budget, make_budget
from predictd.server.launch.cpulist import format_cpulist, parse_cpulist
from predictd.server.launch.describe import describe
from predictd.server.launch.plan import ChildPlan, LaunchPlan, PlanRequest, PoolRequest, RunningPool, plan
from predictd.server.launch.quota import Quota
from predictd.server.launch.shares import Share, apportion, divide
from predictd.server.launch.topology import Cpu, Topology

BINDING = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"}


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Some nodes of some caches of some cores of one to four CPUs each, numbered in any order; perhaps slow cores."""
    cores = st.lists(st.integers(1, 4), min_size=1, max_size=4)
    sizes = draw(st.lists(st.lists(cores, min_size=1, max_size=3), min_size=1, max_size=3))
    slow = draw(st.integers(0, 3))
    total = sum(sum(map(sum, node)) for node in sizes) + slow
    numbers = iter(draw(st.permutations(range(total))))
    cpus: list[Cpu] = []
    for node, caches in enumerate(sizes):
        for cache, counts in enumerate(caches):
            for size in counts:
                siblings = [next(numbers) for _ in range(size)]
                cpus += [Cpu(cpu, min(siblings), node, node, cache) for cpu in siblings]
    cpus += [Cpu(cpu, cpu, efficient=True) for cpu in numbers]
    return Topology(tuple(sorted(cpus, key=lambda cpu: cpu.id)))


@st.composite
def budgets(draw: st.DrawFn, topology: Topology) -> Budget:
    affinity = draw(st.sets(st.sampled_from(topology.ids), min_size=1))
    quotas = draw(st.lists(st.floats(0.01, 2.0 * len(topology.ids)), max_size=3))
    return make_budget(affinity, topology.ids, [Quota(cpus, "cpu.max") for cpus in quotas])


counts = st.none() | st.integers(1, 12)


@st.composite
def pool_requests(draw: st.DrawFn, names: str, least: int = 0) -> tuple[PoolRequest, ...]:
    chosen = draw(st.lists(st.sampled_from(names), min_size=least, max_size=3, unique=True))
    weighted = draw(st.booleans())
    return tuple(
        PoolRequest(
            name,
            draw(counts),
            draw(counts),
            draw(st.booleans()),
            spin=draw(st.none() | st.booleans()),
            cpu_weight=draw(st.none() | st.integers(1, 1000)) if weighted else None,
        )
        for name in chosen
    )


environments = st.dictionaries(
    st.sampled_from(["OMP_NUM_THREADS", "GRPC_VERBOSITY", "ORT_DISABLE_TELEMETRY", "HOME"]),
    st.sampled_from(["0", "3", "x"]),
)


@st.composite
def plan_requests(draw: st.DrawFn, topology: Topology) -> PlanRequest:
    running = draw(st.booleans()) and draw(pool_requests("xy"))
    cpus = st.frozensets(st.sampled_from(topology.ids), min_size=1)
    return PlanRequest(
        draw(pool_requests("abcd")),
        draw(counts),
        draw(environments),
        beside=tuple(RunningPool(pool, draw(cpus)) for pool in running or ()),
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A machine, what is asked of it, and what comes of it."""

    topology: Topology
    budget: Budget
    request: PlanRequest
    shares: Mapping[str, Share]
    result: LaunchPlan


@st.composite
def cases(draw: st.DrawFn) -> Case:
    topology = draw(topologies())
    budget = draw(budgets(topology))
    request = draw(plan_requests(topology))
    shares, _ = divide(topology, budget, request)
    return Case(topology, budget, request, shares, plan(topology, budget, request))


def workers(result: LaunchPlan) -> list[ChildPlan]:
    return [worker for pool in result.pools.values() for worker in pool]


def children(result: LaunchPlan) -> Iterator[ChildPlan]:
    yield from result.frontends
    yield from workers(result)


@given(st.sets(st.integers(0, 1023)))
def test_a_cpulist_survives_the_round_trip(cpus: set[int]) -> None:
    assert parse_cpulist(format_cpulist(cpus)) == tuple(sorted(cpus))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=8))
def test_formatting_is_the_shortest_form_of_what_was_parsed(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + length}" for first, length in ranges)
    formatted = format_cpulist(parse_cpulist(text))
    assert parse_cpulist(formatted) == parse_cpulist(text)
    assert len(formatted) <= len(text)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(0, 300))
def test_cores_are_divided_by_weight_within_one_core(weights: list[int], spare: int) -> None:
    total = len(weights) + spare
    parts = apportion(total, weights)
    exact = [total * weight / sum(weights) for weight in weights]
    assert sum(parts) == total
    assert min(parts) >= 1
    if min(exact) >= 1:
        assert all(abs(part - wanted) < 1 for part, wanted in zip(parts, exact, strict=True))
    assert all(
        a >= b
        for a, u in zip(parts, weights, strict=True)
        for b, v in zip(parts, weights, strict=True)
        if u > v
    )


@given(cases())
def test_every_child_stays_inside_the_budget(case: Case) -> None:
    for child in children(case.result):
        assert child.cpus
        assert child.cpus == tuple(sorted(set(child.cpus)))
        assert set(child.cpus) <= set(case.budget.cpus)
        assert 1 <= child.threads <= len(child.cpus)


@given(cases())
def test_a_quota_bounds_the_threads_and_cuts_no_node_in_two(case: Case) -> None:
    if case.budget.quota_cpus is not None:
        most = max(1, math.floor(case.budget.quota_cpus))
        assert all(child.threads <= most for child in children(case.result))
    if case.budget.throttled:
        for pool in case.request.pools:
            nodes = case.topology.by_node(case.shares[pool.name].cores)
            for worker in case.result.pools[pool.name]:
                inside = [{cpu for core in node for cpu in core} for node in nodes]
                assert set(worker.cpus) == set().union(*(node for node in inside if node & set(worker.cpus)))


@given(cases())
def test_a_worker_owns_its_cores_exactly_if_no_other_worker_is_allowed_there(case: Case) -> None:
    everyone = workers(case.result)
    running = {cpu for pool in case.request.beside for cpu in pool.cpus}
    for number, worker in enumerate(everyone):
        others = {cpu for other in everyone[:number] + everyone[number + 1 :] for cpu in other.cpus}
        assert worker.owns_cores == (others | running).isdisjoint(worker.cpus)
    assert not any(frontend.owns_cores for frontend in case.result.frontends)


@given(cases())
def test_masks_are_disjoint_unless_the_reason_says_otherwise(case: Case) -> None:
    everyone = workers(case.result)
    for number, worker in enumerate(everyone):
        for other in everyone[:number]:
            if set(worker.cpus) & set(other.cpus):
                where = next(reason for reason in worker.reasons if reason.startswith("CPUs "))
                assert "shared with the other pools" in where or "do not fit" in where or "quota" in where


@given(cases())
def test_what_was_asked_for_is_there(case: Case) -> None:
    result, request = case.result, case.request
    assert len(result.frontends) == (request.frontends or len(result.frontends)) >= 1
    assert list(result.pools) == [pool.name for pool in request.pools]
    for pool in request.pools:
        planned = result.pools[pool.name]
        assert len(planned) == (pool.instances or len(planned)) >= 1
        assert len({worker.threads for worker in planned}) == 1
        if pool.threads is not None:
            assert planned[0].threads == min(pool.threads, case.shares[pool.name].threads)
        if pool.spin is not None:
            assert {worker.spin for worker in planned} == {pool.spin}
        else:
            may = len(case.budget.cpus) > 1 and not case.budget.throttled
            assert all(w.spin == (w.owns_cores and may) for w in planned)


@given(cases())
def test_on_one_node_a_pool_that_asks_for_nothing_has_one_worker(case: Case) -> None:
    for pool in case.request.pools:
        if pool.instances is None and len(case.topology.by_node(case.shares[pool.name].cores)) == 1:
            assert len(case.result.pools[pool.name]) == 1


@given(cases())
def test_a_thread_that_nobody_asked_for_has_a_core_to_itself(case: Case) -> None:
    for pool in case.request.pools:
        if pool.threads is None:
            planned = case.result.pools[pool.name]
            assert all(w.threads <= len(case.topology.cores(w.cpus)) for w in planned)


@given(cases())
def test_a_worker_spans_nodes_only_where_it_must(case: Case) -> None:
    for pool in case.request.pools:
        share, planned = case.shares[pool.name], case.result.pools[pool.name]
        nodes = case.topology.by_node(share.cores)
        threads = planned[0].threads
        room = sum(len(node) // threads for node in nodes)
        fits = room >= len(planned) if share.apart else room > 0
        fewer = pool.threads is None and pool.instances is not None and pool.instances < len(nodes)
        if fits and not fewer and not case.budget.throttled:
            assert all(len(case.topology.nodes_of(worker.cpus)) == 1 for worker in planned)


@given(cases())
def test_workers_cut_a_core_in_two_only_when_whole_cores_are_too_few(case: Case) -> None:
    for pool in case.request.pools:
        share, planned = case.shares[pool.name], case.result.pools[pool.name]
        if len(share.cores) >= len(planned) * planned[0].threads:
            assert all(
                len(set(core) & set(w.cpus)) in (0, len(core)) for core in share.cores for w in planned
            )


@given(cases())
def test_slow_cores_compute_only_when_fast_ones_are_too_few(case: Case) -> None:
    topology, cores = case.topology, case.topology.cores(case.budget.cpus)
    slow = {cpu for core in cores for cpu in core if topology.efficient(core)}
    fast = sum(not topology.efficient(core) for core in cores)
    if any(pool.cpu_weight for pool in case.request.everyone):
        return
    for pool in case.request.pools:
        if (pool.instances or 1) * (pool.threads or 1) <= fast:
            assert all(slow.isdisjoint(worker.cpus) for worker in case.result.pools[pool.name])


@given(cases())
def test_pools_with_weights_have_their_cores_to_themselves(case: Case) -> None:
    apart = [share for share in case.shares.values() if share.apart]
    cpus = [cpu for share in apart for cpu in share.cpus]
    assert len(cpus) == len(set(cpus))
    for pool in case.request.pools:
        assert all(set(w.cpus) <= set(case.shares[pool.name].cpus) for w in case.result.pools[pool.name])


@given(cases())
def test_memory_is_preferred_where_the_cpus_are_and_only_where_there_is_a_choice(case: Case) -> None:
    nodes = case.topology.nodes
    for worker in workers(case.result):
        near = case.topology.nodes_of(worker.cpus)
        assert worker.numa_nodes == (() if near == nodes else near)
    assert all(frontend.numa_nodes == () for frontend in case.result.frontends)


@given(cases())
def test_everything_has_a_reason(case: Case) -> None:
    assert case.budget.reasons
    assert case.result.reasons
    for child in children(case.result):
        heads = [f"CPUs {format_cpulist(child.cpus)}: ", f"threads: {child.threads}"]
        heads += [f"{name}={value}: " for name, value in child.environment.items()]
        if child.numa_nodes:
            heads.append("memory: NUMA node")
        for head in heads:
            assert any(reason.startswith(head) for reason in child.reasons)
    for planned in case.result.pools.values():
        for worker in planned:
            spins = "waiting: spins" if worker.spin else "waiting: sleeps"
            for head in (f"workers: {len(planned)}, ", spins):
                assert any(reason.startswith(head) for reason in worker.reasons)


@given(cases())
def test_no_child_is_bound_or_phones_home(case: Case) -> None:
    for child in children(case.result):
        assert BINDING.isdisjoint(child.environment)
        assert child.environment["ORT_DISABLE_TELEMETRY"] == "1"


@given(cases())
def test_oversubscription_is_never_silent(case: Case) -> None:
    result = case.result
    for name, pool in result.pools.items():
        too_many = sum(worker.threads for worker in pool) > case.shares[name].threads
        said = any(w.startswith(f"pool {name}:") and "oversubscribed" in w for w in result.warnings)
        assert said == too_many
    total = sum(worker.threads for worker in workers(result))
    if total > case.budget.effective_cpus:
        told = [w for w in result.warnings if "oversubscribed" in w]
        assert told or any(f"have {total} threads on" in reason for reason in result.reasons)


@given(cases())
def test_the_description_names_every_process(case: Case) -> None:
    rows = describe(case.result, case.budget).splitlines()
    for name, pool in case.result.pools.items():
        numbers = [row.split()[2] for row in rows if row.startswith(f"worker {name} ")]
        assert parse_cpulist(",".join(numbers)) == tuple(range(len(pool)))


@given(cases())
def test_a_pool_that_runs_already_changes_nothing_for_those_it_shares_no_cpu_with(case: Case) -> None:
    """The plan of a model that comes again is the one that it had, so that its weight outlives its versions."""
    request = case.request
    if not request.pools or request.beside:
        return
    newcomer, *others = request.pools
    running = tuple(
        RunningPool(pool, frozenset(cpu for worker in case.result.pools[pool.name] for cpu in worker.cpus))
        for pool in others
    )
    again = replace(newcomer, name=f"{newcomer.name}~2")
    late = plan(case.topology, case.budget, replace(request, pools=(again,), beside=running))
    assert [w.cpus for w in late.pools[again.name]] == [w.cpus for w in case.result.pools[newcomer.name]]
    assert [w.spin for w in late.pools[again.name]] == [w.spin for w in case.result.pools[newcomer.name]]
