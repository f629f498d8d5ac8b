"""From settings and models to pools and lanes."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from predictd.server.config.lane import QueueRules
from predictd.server.config.model_config import ModelConfig, QueuePolicy
from predictd.server.config.settings import Settings
from predictd.server.launch.plan import PoolRequest
from predictd.server.repository.models import FoundModel, FoundVersion
from predictd.server.supervise.assembly import PoolModels, divide, lanes, plan_request
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
        PoolRequest("a", instances=None, threads=None, shared=False),
        PoolRequest("shared", instances=None, threads=3, shared=True),
    )
    assert (request.frontends, request.environment) == (2, {"OMP_NUM_THREADS": "1"})


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


def test_a_lane_takes_what_its_model_says_and_else_the_settings() -> None:
    model = found("a", 1, 7, max_batch_size=3, max_delay_ns=0, engine="x.y:load", parameters={"k": "v"})
    settings = Settings(max_batch_size=5, max_delay_ns=9, max_queue_size=11, max_request_rows=13)
    own, plain = lanes(pool_models("p", model, found("b")), (PLAN,), settings, count(20))
    assert (own.lane, own.model, own.version, own.path) == (20, "a", 7, "/models/a/7/model.onnx")
    assert (own.engine, own.parameters) == ("x.y:load", {"k": "v"})
    assert (own.max_batch_size, own.max_delay_ns, own.max_queue_size) == (3, 0, 11)
    assert (plain.lane, plain.engine, plain.max_batch_size, plain.max_delay_ns) == (21, "onnxruntime", 5, 9)
    assert own.max_request_rows == plain.max_request_rows == 13


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
