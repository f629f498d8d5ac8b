"""What holds of every plan, whatever the machine and the request."""

import math
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.launch.budget import Budget, Quota, make_budget
from predictd.server.launch.cpulist import format_cpulist, parse_cpulist
from predictd.server.launch.describe import describe
from predictd.server.launch.plan import ChildPlan, LaunchPlan, PlanRequest, PoolRequest, plan
from predictd.server.launch.topology import Cpu, Topology

BINDING = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"}


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Some packages of some cores of one to four CPUs each, numbered in any order."""
    sizes = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=3))
    total = sum(map(sum, sizes))
    numbers = iter(draw(st.permutations(range(total))))
    cpus: list[Cpu] = []
    for package, cores in enumerate(sizes):
        for size in cores:
            siblings = [next(numbers) for _ in range(size)]
            cpus += [Cpu(cpu, min(siblings), package, package) for cpu in siblings]
    return Topology(tuple(sorted(cpus, key=lambda cpu: cpu.id)))


@st.composite
def budgets(draw: st.DrawFn, topology: Topology) -> Budget:
    affinity = draw(st.sets(st.sampled_from(topology.ids), min_size=1))
    quotas = draw(st.lists(st.floats(0.01, 2.0 * len(topology.ids)), max_size=3))
    return make_budget(affinity, topology.ids, [Quota(cpus, "cpu.max") for cpus in quotas])


counts = st.none() | st.integers(1, 12)
requests = st.builds(
    PlanRequest,
    pools=st.lists(
        st.builds(PoolRequest, st.sampled_from("abcd"), counts, counts, st.booleans()),
        max_size=3,
        unique_by=lambda pool: pool.name,
    ).map(tuple),
    frontends=counts,
    environment=st.dictionaries(
        st.sampled_from(["OMP_NUM_THREADS", "GRPC_VERBOSITY", "ORT_DISABLE_TELEMETRY", "HOME"]),
        st.sampled_from(["0", "3", "x"]),
    ),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Topology, Budget, PlanRequest, LaunchPlan]:
    topology = draw(topologies())
    budget = draw(budgets(topology))
    request = draw(requests)
    return topology, budget, request, plan(topology, budget, request)


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


@given(cases())
def test_every_child_stays_inside_the_budget(case: tuple[Topology, Budget, PlanRequest, LaunchPlan]) -> None:
    _, budget, _, result = case
    for child in children(result):
        assert child.cpus
        assert child.cpus == tuple(sorted(set(child.cpus)))
        assert set(child.cpus) <= set(budget.cpus)
        assert 1 <= child.threads <= len(child.cpus)


@given(cases())
def test_a_quota_bounds_the_threads_and_leaves_the_masks(
    case: tuple[Topology, Budget, PlanRequest, LaunchPlan],
) -> None:
    _, budget, _, result = case
    if budget.quota_cpus is not None:
        assert all(child.threads <= max(1, math.floor(budget.quota_cpus)) for child in children(result))
    if budget.throttled:
        assert all(child.cpus == budget.cpus for child in children(result))


@given(cases())
def test_a_worker_owns_its_cores_exactly_if_no_other_worker_is_allowed_there(
    case: tuple[Topology, Budget, PlanRequest, LaunchPlan],
) -> None:
    _, _, _, result = case
    everyone = workers(result)
    for number, worker in enumerate(everyone):
        others = {cpu for other in everyone[:number] + everyone[number + 1 :] for cpu in other.cpus}
        assert worker.owns_cores == others.isdisjoint(worker.cpus)
    assert not any(frontend.owns_cores for frontend in result.frontends)


@given(cases())
def test_what_was_asked_for_is_there(case: tuple[Topology, Budget, PlanRequest, LaunchPlan]) -> None:
    _, budget, request, result = case
    assert len(result.frontends) == (request.frontends or len(result.frontends)) >= 1
    assert list(result.pools) == [pool.name for pool in request.pools]
    for pool in request.pools:
        planned = result.pools[pool.name]
        assert len(planned) == (pool.instances or 1)
        assert len({worker.threads for worker in planned}) == 1
        if pool.threads is not None:
            assert planned[0].threads == min(pool.threads, budget.effective_cpus)


@given(cases())
def test_a_thread_that_nobody_asked_for_has_a_core_to_itself(
    case: tuple[Topology, Budget, PlanRequest, LaunchPlan],
) -> None:
    topology, _, request, result = case
    for pool in request.pools:
        if pool.threads is None:
            assert all(w.threads <= len(topology.cores(w.cpus)) for w in result.pools[pool.name])


@given(cases())
def test_workers_cut_a_core_in_two_only_when_whole_cores_are_too_few(
    case: tuple[Topology, Budget, PlanRequest, LaunchPlan],
) -> None:
    topology, budget, _, result = case
    cores = topology.cores(budget.cpus)
    for pool in result.pools.values():
        if len(cores) >= len(pool) * pool[0].threads:
            assert all(len(set(core) & set(w.cpus)) in (0, len(core)) for core in cores for w in pool)


@given(cases())
def test_everything_has_a_reason(case: tuple[Topology, Budget, PlanRequest, LaunchPlan]) -> None:
    _, budget, _, result = case
    assert budget.reasons
    assert result.reasons
    for child in children(result):
        assert any(reason.startswith(f"CPUs {format_cpulist(child.cpus)}: ") for reason in child.reasons)
        assert any(reason.startswith(f"threads: {child.threads}") for reason in child.reasons)
        for name, value in child.environment.items():
            assert any(reason.startswith(f"{name}={value}: ") for reason in child.reasons)


@given(cases())
def test_no_child_is_bound_or_phones_home(case: tuple[Topology, Budget, PlanRequest, LaunchPlan]) -> None:
    _, _, _, result = case
    for child in children(result):
        assert BINDING.isdisjoint(child.environment)
        assert child.environment["ORT_DISABLE_TELEMETRY"] == "1"


@given(cases())
def test_oversubscription_is_never_silent(case: tuple[Topology, Budget, PlanRequest, LaunchPlan]) -> None:
    _, budget, _, result = case
    for name, pool in result.pools.items():
        too_many = sum(worker.threads for worker in pool) > budget.effective_cpus
        said = any(w.startswith(f"pool {name}:") and "oversubscribed" in w for w in result.warnings)
        assert said == too_many


@given(cases())
def test_the_description_names_every_process(case: tuple[Topology, Budget, PlanRequest, LaunchPlan]) -> None:
    _, budget, _, result = case
    rows = describe(result, budget).splitlines()
    for name, pool in result.pools.items():
        numbers = [row.split()[2] for row in rows if row.startswith(f"worker {name} ")]
        assert parse_cpulist(",".join(numbers)) == tuple(range(len(pool)))
