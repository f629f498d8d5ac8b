from __future__ import annotations

from dataclasses import replace

from predictd.server.control.publication import LabelView, LaneView, PublishModel
from predictd.server.launch.budget import Budget
from predictd.server.launch.plan import ChildPlan, LaunchPlan
from predictd.server.observe.status import LabelInfo, ShareInfo
from predictd.server.supervise.overview import overview
from predictd.server.supervise.pool import Place, Pool
from predictd.server.supervise.states import Event
from tests.fixtures.supervision import lane_config

PLAN = ChildPlan(
    cpus=(0, 1, 2), threads=2, owns_cores=True, spin=True, environment={}, reasons=("why",), numa_nodes=(0,)
)
BUDGET = Budget(
    cpus=(0, 1, 2, 3), quota_cpus=2.5, effective_cpus=2, reasons=("a quota",), memory_bytes=1 << 30
)


def test_models_processes_and_the_plan_are_shown_as_they_are() -> None:
    pool = Pool(7, "resnet", (PLAN, replace(PLAN, numa_nodes=())), 16)
    frontend = Place(0, PLAN)
    frontend.move(Event.SPAWN)
    published = PublishModel(
        seq=0,
        name="resnet",
        default_version=2,
        versions=[
            LaneView(version=2, state="READY", pool=7, instances=2, config=lane_config(1, "resnet", 2)),
            LaneView(
                version=1, state="FAILED", pool=9, reason="no such file", config=lane_config(2, "resnet", 1)
            ),
        ],
        labels=(LabelView(name="stable", version=2, set_by="run_time", next_version=1),),
        split=((2, 90), (1, 10)),
    )
    try:
        plan = LaunchPlan(frontends=(PLAN,), pools={}, reasons=("as asked",), warnings=("think",))
        seen = overview([published], [pool], [frontend], plan, BUDGET)
    finally:
        pool.close()

    (model,) = seen.models
    assert (model.name, model.default_version) == ("resnet", 2)
    assert model.labels == (LabelInfo("stable", 2, 1),)
    assert model.split == (ShareInfo(2, 90), ShareInfo(1, 10))
    # A pool that could not be made, or is on its way out, has no name here.
    assert [(one.version, one.state, one.pool, one.reason) for one in model.versions] == [
        (2, "READY", "resnet", ""),
        (1, "FAILED", "", "no such file"),
    ]
    assert [(one.role, one.index, one.state, one.numa_nodes) for one in seen.processes] == [
        ("frontend", "0", "starting", "0"),
        ("worker", "resnet/0", "stopped", "0"),
        ("worker", "resnet/1", "stopped", ""),
    ]
    assert {(one.cpus, one.threads, one.reasons, one.pid) for one in seen.processes} == {
        ("0-2", 2, ("why",), None)
    }
    assert seen.plan.reasons == ("a quota", "as asked")
    assert (seen.plan.cpus, seen.plan.quota_cpus, seen.plan.usable_cpus) == ("0-3", 2.5, 2)
    assert seen.plan.warnings == ("think",)
