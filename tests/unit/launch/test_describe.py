import json
from dataclasses import replace

from predictd.server.launch.budget import make_budget
from predictd.server.launch.describe import JSON_VERSION, as_json, describe
from predictd.server.launch.plan import PlanRequest, PoolRequest, plan
from predictd.server.launch.topology import Cpu, Topology

FOUR = Topology(tuple(Cpu(cpu, cpu) for cpu in range(4)))
BUDGET = make_budget(range(4), range(4), [])


def test_warnings_come_first_and_reasons_last() -> None:
    result = plan(FOUR, BUDGET, PlanRequest((PoolRequest("resnet", instances=6),)))
    assert describe(result, BUDGET).splitlines() == [
        "warning: pool resnet: 6 workers of 1 thread on 4 usable CPUs: oversubscribed",
        "process            CPUs  threads  cores   waiting  memory",
        "frontend 0         0-3   1        shared  sleeps   any",
        "worker resnet 0-5  0-3   1        shared  sleeps   any",
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


def test_the_json_says_what_the_text_says() -> None:
    result = plan(FOUR, BUDGET, PlanRequest((PoolRequest("m", instances=2), PoolRequest("n"))))
    document = json.loads(as_json(result, replace(BUDGET, memory_bytes=1 << 30), {"m": ["a", "b"]}))
    assert document["version"] == JSON_VERSION
    assert document["budget"] == {
        "cpus": "0-3",
        "quota_cpus": None,
        "usable_cpus": 4,
        "memory_bytes": 1 << 30,
    }
    assert document["warnings"] == list(result.warnings)
    assert document["reasons"] == [*BUDGET.reasons, *result.reasons]
    assert len(document["frontends"]) == len(result.frontends)
    assert {name: pool["models"] for name, pool in document["pools"].items()} == {"m": ["a", "b"], "n": []}
    first, planned = document["pools"]["m"]["workers"][0], result.pools["m"][0]
    assert first == {
        "cpus": "0-3",
        "threads": planned.threads,
        "owns_cores": False,
        "spin": False,
        "numa_nodes": [],
        "environment": planned.environment,
        "reasons": list(planned.reasons),
    }
