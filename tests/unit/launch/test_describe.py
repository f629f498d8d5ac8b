from predictd.server.launch.budget import make_budget
from predictd.server.launch.describe import describe
from predictd.server.launch.plan import PlanRequest, PoolRequest, plan
from predictd.server.launch.topology import Cpu, Topology

FOUR = Topology(tuple(Cpu(cpu, cpu) for cpu in range(4)))
BUDGET = make_budget(range(4), range(4), [])


def test_warnings_come_first_and_reasons_last() -> None:
    result = plan(FOUR, BUDGET, PlanRequest((PoolRequest("resnet", instances=6),)))
    assert describe(result, BUDGET).splitlines() == [
        "warning: pool resnet: 6 workers of 1 thread on 4 usable CPUs: oversubscribed",
        "process            CPUs  threads  cores",
        "frontend 0         0-3   1        shared",
        "worker resnet 0-5  0-3   1        shared",
        "because",
        "  CPUs 0-3: the affinity mask",
        "  no CPU quota in any visible cgroup",
        "  4 CPUs on 4 cores",
        "  front ends: 1, one for every 4 usable CPUs, at least 1, at most 8",
    ]


def test_an_explanation_adds_every_reason_of_every_child_once() -> None:
    result = plan(FOUR, BUDGET, PlanRequest((PoolRequest("m", instances=2), PoolRequest("n"))))
    lines = describe(result, BUDGET, explain=True).splitlines()
    short = describe(result, BUDGET).splitlines()
    assert lines[: len(short)] == short
    expected = []
    for name, child in (
        ("frontend 0", result.frontends[0]),
        ("worker m 0-1", result.pools["m"][0]),
        ("worker n 0", result.pools["n"][0]),
    ):
        expected += [name, *(f"  {reason}" for reason in child.reasons)]
    assert lines[len(short) :] == expected
