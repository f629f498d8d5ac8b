"""The plan of machines and containers as they are found, from files to text, line by line.

What is expected stands in tests/fixtures/plans; `python -m tests.fixtures.machines --plans` writes it anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from predictd.server.launch.budget import read_affinity, read_budget
from predictd.server.launch.plan import PlanRequest, PoolRequest, plan
from predictd.server.launch.topology import read_topology
from tests.fixtures.machines import MACHINES, PLANS, main, planned
from tests.fixtures.sysfs import FakeSystem

CASES = [(name, which) for name, machine in MACHINES.items() for which in machine.plans]


@pytest.mark.parametrize(("name", "which"), CASES, ids=[f"{name}.{which}" for name, which in CASES])
def test_the_plan_is_the_expected_one_line_by_line(name: str, which: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    machine.write(FakeSystem(tmp_path))
    expected = (PLANS / f"{name}.{which}.txt").read_text().splitlines()
    assert planned(tmp_path, machine.plans[which]).splitlines() == expected


def test_every_expected_plan_belongs_to_a_machine() -> None:
    assert {path.name for path in PLANS.iterdir()} == {f"{name}.{which}.txt" for name, which in CASES}


def test_the_example_in_the_documentation_is_the_first_part_of_a_plan() -> None:
    page = Path(__file__).parents[3] / "docs" / "launcher.md"
    command, *shown = page.read_text().partition("```console\n")[2].partition("\n```")[0].splitlines()
    expected = (PLANS / f"{command.split()[-1]}.default.txt").read_text().splitlines()
    assert len(shown) > 5
    assert shown == expected[: len(shown)]


def test_a_machine_can_be_written_into_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["epyc-nps4", str(tmp_path)])
    assert read_affinity(tmp_path) == tuple(range(128))
    main([])
    assert capsys.readouterr().out.split() == list(MACHINES)


def test_the_launcher_reads_what_the_builder_says_of_a_large_machine(tmp_path: Path) -> None:
    MACHINES["epyc-nps4"].write(FakeSystem(tmp_path))
    topology = read_topology((), tmp_path)
    nodes = topology.by_node(topology.cores(topology.ids))
    assert [len(node) for node in nodes] == [16] * 4
    assert [[len(cache) for cache in topology.by_cache(node)] for node in nodes] == [[8, 8]] * 4


def test_this_machine() -> None:
    affinity = os.sched_getaffinity(0)
    topology = read_topology(affinity)
    budget = read_budget(affinity, topology.ids)
    workers = plan(topology, budget, PlanRequest((PoolRequest("m"),))).pools["m"]
    assert all(set(worker.cpus) <= affinity for worker in workers)
    assert 1 <= sum(worker.threads for worker in workers) <= budget.effective_cpus <= len(affinity)
