"""From settings and models to pools and lanes."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from predictd.server.config.lane import QueueRules
from predictd.server.config.model_config import ModelConfig, Origin, QueuePolicy
from predictd.server.config.settings import Settings
from predictd.server.launch.budget import make_budget
from predictd.server.launch.instances import Memory
from predictd.server.launch.plan import PoolRequest
from predictd.server.launch.topology import Cpu, Topology
from predictd.server.repository.models import FoundModel, FoundVersion
from predictd.server.supervise.assembly import (
    Planner,
    PoolModels,
    afford,
    divide,
    lanes,
    plan_request,
    plan_start,
    pool_request,
)
from predictd.server.supervise.pool import Pool
from tests.fixtures.supervision import PLAN, found, pool_models


def test_models_are_divided_as_the_settings_say() -> None:
    a, b, c = found("a"), found("b", pool="common"), found("c", pool="common")
    assert divide([a, b, c], Settings(), cores=2) == (PoolModels("a", (a,)), PoolModels("common", (b, c)))
    assert divide([a, b], Settings(pools="shared"), cores=2) == (
        PoolModels("shared", (a,)),
        PoolModels("common", (b,)),
    )


def test_the_launcher_is_asked_for_what_models_and_settings_say() -> None:
    pools = (pool_models("a"), pool_models("shared", found("b", threads=2), found("c", threads=3)))
    request = plan_request(pools, Settings(frontends=2), {"OMP_NUM_THREADS": "1"})
    assert request.pools == (
        PoolRequest("a", instances=None, threads=None, shared=False, engines=frozenset({"onnxruntime"})),
        PoolRequest("shared", instances=None, threads=3, shared=True),
    )
    assert (request.frontends, request.environment) == (2, {"OMP_NUM_THREADS": "1"})
    assert request.warnings == ()


def test_a_pool_has_the_allocator_that_its_models_ask_for_and_else_the_settings() -> None:
    settings = Settings(allocator="tcmalloc")
    pools = (
        pool_models("a", found("a", allocator="jemalloc", openmp="libiomp5", engine="x.y:load")),
        pool_models("b", found("b"), found("c", allocator="glibc")),
        pool_models("d"),
    )
    request = plan_request(pools, settings, {})
    assert [pool.allocator for pool in request.pools] == ["jemalloc", "glibc", "tcmalloc"]
    assert [pool.openmp for pool in request.pools] == ["libiomp5", None, None]
    assert request.pools[0].engines == {"x.y:load"}
    assert request.warnings == ()


def test_models_that_cannot_agree_on_what_a_process_has_once_are_told_so() -> None:
    pool = pool_models("p", found("a", allocator="jemalloc"), found("b", allocator="glibc"))
    request = plan_request((pool,), Settings(allocator="tcmalloc"), {})
    assert [pool.allocator for pool in request.pools] == ["tcmalloc"]
    assert request.warnings == ("pool p: its models ask for allocator glibc and jemalloc: neither is taken",)


def test_instances_are_those_of_the_most_demanding_model_and_else_the_settings() -> None:
    pools = (
        pool_models("a", found("a", instances=3), found("b")),
        pool_models("c", found("c", instances=1)),
        pool_models("d"),
    )
    settings = Settings(instances=2, threads=5)
    assert [one.instances for one in plan_request(pools, settings, {}).pools] == [3, 1, 2]
    assert [one.instances for one in plan_request(pools, Settings(), {}).pools] == [3, 1, None]
    assert [one.threads for one in plan_request(pools, settings, {}).pools] == [5, 5, 5]


def test_no_more_workers_are_asked_for_than_there_is_memory_for() -> None:
    pools = (pool_models("a", found("a", instances=3)), pool_models("b"))
    request = plan_request(pools, Settings(), {})
    afforded = afford(request, {"a": 100 << 20, "b": 0}, Memory(600 << 20, "/proc/meminfo"))
    assert [(one.name, one.instances) for one in afforded.pools] == [("a", 1), ("b", None)]
    assert [warning[:52] for warning in afforded.warnings] == [
        "pool a: 1 instead of the 3 workers asked for, as a w"
    ]
    assert afford(request, {"a": 0, "b": 0}, Memory(1 << 40, "")) == request


def test_a_lane_takes_what_its_model_says_and_else_the_settings() -> None:
    model = found(
        "a",
        1,
        7,
        max_batch_size=3,
        max_delay_ns=0,
        engine="x.y:load",
        run_timeout_ns=19,
        parameters={"k": "v"},
        model_files_by_capability={"8.9": "ada.plan"},
    )
    settings = Settings(
        max_batch_size=5, max_delay_ns=9, max_queue_size=11, max_request_rows=13, run_timeout_ns=17
    )
    own, plain = lanes(pool_models("p", model, found("b")), (PLAN,), settings, count(20))
    assert (own.lane, own.model, own.version, own.path) == (20, "a", 7, "/models/a/7/model.onnx")
    assert (own.engine, own.parameters) == ("x.y:load", {"k": "v"})
    assert own.files_by_capability == {"8.9": "ada.plan"}
    assert (own.max_batch_size, own.max_delay_ns, own.max_queue_size) == (3, 0, 11)
    assert (plain.lane, plain.engine, plain.max_batch_size, plain.max_delay_ns) == (21, "onnxruntime", 5, 9)
    assert (own.device, plain.device) == ("cpu", "cpu")
    assert own.max_request_rows == plain.max_request_rows == 13
    assert (own.run_timeout_ns, plain.run_timeout_ns) == (19, 17)


@pytest.mark.parametrize(
    ("file", "said", "settings", "engine"),
    [
        ("m.onnx", None, Settings(), "onnxruntime"),
        ("m.xml", None, Settings(), "openvino"),
        ("m.onnx", None, Settings(engine="openvino"), "openvino"),
        ("m.xml", None, Settings(engine="onnxruntime"), "openvino"),
        ("m.onnx", "onnxruntime", Settings(engine="openvino"), "onnxruntime"),
        ("weights", None, Settings(engine="openvino"), "onnxruntime"),
    ],
)
def test_the_engine_is_what_the_model_says_and_else_what_the_settings_prefer_for_its_file(
    file: str, said: str | None, settings: Settings, engine: str
) -> None:
    model = FoundModel("m", (FoundVersion(1, Path(file)),), ModelConfig(engine=said))
    (lane,) = lanes(pool_models("p", model), (PLAN,), settings, count(1))
    assert lane.engine == engine


@pytest.mark.parametrize(("said", "device"), [(None, "0"), ("2,3", "2,3")])
def test_a_model_of_tensorrt_is_on_the_first_gpu_unless_it_says_where(said: str | None, device: str) -> None:
    model = found("a", engine="tensorrt", device=said)
    (lane,) = lanes(pool_models("p", model), (PLAN,), Settings(), count(1))
    assert lane.device == device


def test_a_model_may_ask_for_fewer_threads_than_its_pool_has_and_not_for_more() -> None:
    models = pool_models("p", found("a", threads=1), found("b", threads=64), found("c"))
    assert [lane.threads for lane in lanes(models, (PLAN,), Settings(), count(1))] == [1, 1, 1]


def test_what_a_priority_says_goes_before_what_its_model_says_and_that_before_the_settings() -> None:
    model = found(
        "a",
        priority_levels=3,
        default_priority=3,
        max_queue_size=20,
        default_timeout_ns=5,
        allow_timeout_override=True,
        priority_queues={
            1: QueuePolicy(max_queue_size=0, default_timeout_ns=0),
            2: QueuePolicy(max_queue_size=30, allow_timeout_override=False, timeout_action="delay"),
        },
    )
    (own,) = lanes(pool_models("p", model), (PLAN,), Settings(max_queue_size=11), count(1))
    assert (own.priority_levels, own.default_priority, own.max_queue_size) == (3, 3, 30)
    assert own.queue_rules == (
        QueueRules(max_queue_size=11, timeout_ns=0, timeout_override=True),
        QueueRules(max_queue_size=30, timeout_ns=5, delay=True),
        QueueRules(max_queue_size=20, timeout_ns=5, timeout_override=True),
    )


def test_a_model_without_priorities_has_three_with_the_same_rules() -> None:
    (own,) = lanes(pool_models("p"), (PLAN,), Settings(max_queue_size=11), count(1))
    assert (own.priority_levels, own.default_priority) == (0, 2)
    assert own.queue_rules == (QueueRules(max_queue_size=11),) * 3


def test_a_preferred_size_raises_a_limit_that_the_model_does_not_set() -> None:
    models = [found("a", preferred_batch_sizes=(4, 64)), found("b", preferred_batch_sizes=(4,))]
    (a, b) = lanes(pool_models("p", *models), (PLAN,), Settings(max_batch_size=5), count(1))
    assert (a.max_batch_size, a.preferred_batch_sizes) == (64, (4, 64))
    assert (b.max_batch_size, b.preferred_batch_sizes) == (5, (4,))


def test_what_was_asked_for_says_where_it_stands() -> None:
    file = Path("m/model.toml")
    said = {"threads": Origin(file, 2), "cpu_weight": Origin(file, 3), "spin": Origin(file, 4)}
    model = found("m", threads=2, cpu_weight=300, spin=False, origins=said)
    settings = Settings(frontends=1, instances=2, origins={"frontends": "--frontends", "instances": "x.toml"})
    request = plan_request((pool_models("m", model),), settings, {})
    (pool,) = request.pools
    assert (pool.cpu_weight, pool.spin) == (300, False)
    assert pool.origins == {
        "instances": "x.toml",
        "threads": "m/model.toml:2",
        "cpu_weight": "m/model.toml:3",
        "spin": "m/model.toml:4",
    }
    assert request.origins == {"frontends": "--frontends"}


def test_a_pool_weighs_what_its_heaviest_model_does_and_spins_if_all_agree() -> None:
    models = (found("a", cpu_weight=7, spin=True), found("b", cpu_weight=9), found("c"))
    (pool,) = plan_request((pool_models("p", *models),), Settings(), {}).pools
    assert (pool.cpu_weight, pool.spin) == (9, True)
    at_odds = pool_models("p", found("a", spin=True), found("b", spin=False))
    assert plan_request((at_odds,), Settings(), {}).pools[0].spin is None


def test_a_model_that_comes_again_gets_the_cpus_that_its_weight_gave_it() -> None:
    topology = Topology(tuple(Cpu(cpu, cpu) for cpu in range(4)))
    planner = Planner(topology, make_budget(topology.ids, topology.ids, []))
    heavy, light = found("a", cpu_weight=300), found("b")
    pools, first = plan_start([heavy, light], Settings(), planner, {})
    assert [[worker.cpus for worker in workers] for workers in first.pools.values()] == [[(0, 1, 2)], [(3,)]]
    runs = Pool(1, "b", first.pools["b"], 64, request=pool_request(pools[1], Settings()))
    try:
        again = plan_request((pool_models("a~2", heavy),), Settings(), {}, beside=[runs.as_running()])
    finally:
        runs.close()
    (worker,) = planner.plan(again).pools["a~2"]
    assert (worker.cpus, worker.owns_cores, worker.spin) == ((0, 1, 2), True, True)
