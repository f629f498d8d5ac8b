from __future__ import annotations

import json
from typing import Any

from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.gauges import BuildInfo, Gauges, LaneGauge, ProcessGauge, QueueGauge, Readiness
from predictd.server.observe.history import History
from predictd.server.observe.processes import Memory
from predictd.server.observe.recent import RecentEvent
from predictd.server.observe.recorder import FrontendRecorder, WorkerRecorder
from predictd.server.observe.status import (
    LabelInfo,
    ModelInfo,
    Overview,
    PlanInfo,
    ProcessInfo,
    ShareInfo,
    VersionInfo,
    encode,
    status_document,
)

PLAN = PlanInfo(
    cpus="0-1", usable_cpus=2, quota_cpus=None, memory_bytes=None, reasons=("2 CPUs",), warnings=("few",)
)
EVIL = "<img src=x onerror=alert(1)>\u202e\udcff\n"


def model(name: str, *versions: int) -> ModelInfo:
    return ModelInfo(
        name=name,
        default_version=versions[0],
        labels=(LabelInfo("stable", versions[0], 0),),
        split=(ShareInfo(versions[0], 100),),
        versions=tuple(
            VersionInfo(
                version=version,
                state="READY",
                reason="",
                pool=name,
                instances=1,
                engine="onnxruntime",
                max_batch_size=32,
            )
            for version in versions
        ),
    )


def process(role: str, index: str, pid: int | None) -> ProcessInfo:
    return ProcessInfo(
        role=role,
        index=index,
        state="serving" if pid else "backoff",
        pid=pid,
        restarts=0,
        cpus="0",
        threads=1,
        owns_cores=True,
        spin=False,
        numa_nodes="",
        reasons=("because",),
    )


def served(aggregate: Aggregate, lane: int | None, number: int, status: str = "OK", api: str = "oip") -> None:
    recorder = FrontendRecorder()
    for _ in range(number):
        if lane is not None and status == "OK":
            recorder.answered(lane, api, status, 1_000_000, 1000, 1000, 1)
        else:
            recorder.failed(lane, api, status, 1_000_000)
    aggregate.add_frontend(recorder.take(), 1)


def document(
    aggregate: Aggregate, *models: ModelInfo, asked: str = "", events: tuple[RecentEvent, ...] = ()
) -> Any:
    history = History(0.0)
    history.look(aggregate, 2.0, unix_seconds=1e9, in_flight=1)
    gauges = Gauges(
        readiness=Readiness(
            ready=False, lanes=(LaneGauge("a", 1, "READY", load_seconds=0.5),), reasons=("draining",)
        ),
        build=BuildInfo("1", "3.11", "1.23"),
        start_unix_seconds=5.0,
        queues=(QueueGauge("a", 1, 4, 1024),),
        in_flight={0: 1, 1: 2},
        processes=(
            ProcessGauge("supervisor", "0", Memory(10, 5), 1.5),
            ProcessGauge("worker", "a/0", Memory(20, 15), 2.5, 30),
            ProcessGauge("worker", "a/1", None, 0.5),
        ),
    )
    overview = Overview(models, (process("worker", "a/0", 7), process("worker", "a/1", None)), PLAN, pid=5)
    made = status_document(aggregate, gauges, overview, history, events, unix_seconds=1e9, model=asked)
    return json.loads(encode(made))


def test_requests_and_runs_of_a_version_are_what_was_counted() -> None:
    aggregate, worker = Aggregate(), WorkerRecorder()
    aggregate.name_lane(1, "a", 1)
    served(aggregate, 1, 3)
    served(aggregate, 1, 2, api="predictd.v1")
    served(aggregate, 1, 4, "INTERNAL")
    served(aggregate, None, 5, "NOT_FOUND")
    for rows, runs in ((1, 2), (3, 1), (5000, 1)):
        for _ in range(runs):
            worker.ran(1, rows, 1, 1000)
    aggregate.add_worker(worker.take())
    shown = document(aggregate, model("a", 1))
    (version,) = shown["models"][0]["versions"]
    assert version["requests"] == {"OK": 5, "INTERNAL": 4}
    assert shown["requests"] == {"OK": 5, "INTERNAL": 4, "NOT_FOUND": 5}
    assert shown["unknown_model_requests"] == {"NOT_FOUND": 5}
    assert (version["runs"], version["rows"]) == (4, 5005)
    assert version["batches"] == [
        {"rows_max": 1, "runs": 2},
        {"rows_max": 4, "runs": 1},
        {"rows_max": None, "runs": 1},
    ]
    assert version["now"]["requests_per_second"] == 2.5
    assert version["load_seconds"] == 0.5
    assert shown["now"]["errors_per_second"] == 4.5


def test_what_it_says_of_the_daemon() -> None:
    shown = document(Aggregate(), model("a", 2, 1))
    assert (shown["ready"], shown["reasons"], shown["in_flight"]) == (False, ["draining"], 3)
    assert shown["queues"] == [{"pool": "a", "priority": 1, "depth": 4, "capacity": 1024}]
    assert shown["plan"]["reasons"] == ["2 CPUs"]
    assert shown["models"][0]["labels"] == [{"name": "stable", "version": 2, "next_version": 0}]
    assert shown["models"][0]["split"] == [{"version": 2, "percent": 100}]


def test_each_process_is_there_once_with_its_plan_and_its_memory() -> None:
    processes = {(one["role"], one["index"]): one for one in document(Aggregate())["processes"]}
    assert list(processes) == [("supervisor", "0"), ("worker", "a/0"), ("worker", "a/1")]
    assert processes["worker", "a/0"]["resident_bytes"] == 20
    assert processes["worker", "a/0"]["arena_bytes"] == 30
    assert processes["worker", "a/0"]["pid"] == 7
    assert processes["worker", "a/0"]["cpu_seconds"] == 2.5
    assert processes["worker", "a/1"]["resident_bytes"] is None
    assert processes["worker", "a/1"]["state"] == "backoff"
    assert processes["supervisor", "0"]["resident_bytes"] == 10
    assert processes["supervisor", "0"]["pid"] == 5


def test_the_history_is_that_of_the_model_that_was_asked_for() -> None:
    aggregate = Aggregate()
    aggregate.name_lane(1, "a", 1)
    aggregate.name_lane(2, EVIL, 1)
    served(aggregate, 1, 4)
    served(aggregate, 2, 2)
    models = (model("a", 1), model(EVIL, 1))
    rates = {
        asked: document(aggregate, *models, asked=asked)["history"]["requests_per_second"]
        for asked in ("", "a", "nobody")
    }
    assert rates == {"": [3.0], "a": [2.0], "nobody": [3.0]}
    # By the name under which it is shown.
    shown = document(aggregate, *models)["models"][1]["name"]
    history = document(aggregate, *models, asked=shown)["history"]
    assert (history["model"], history["requests_per_second"]) == (shown, [1.0])


def test_no_string_can_break_a_line_or_turn_a_direction() -> None:
    event = RecentEvent(1.0, "error", EVIL, 7, EVIL, EVIL)
    aggregate = Aggregate()
    aggregate.name_lane(1, EVIL, 1)
    served(aggregate, 1, 1)
    shown = document(aggregate, model(EVIL, 1), events=(event,))
    harmless = "<img src=x onerror=alert(1)>\\u202e\\udcff\\n"
    assert shown["models"][0]["name"] == harmless
    assert shown["models"][0]["versions"][0]["requests"] == {"OK": 1}
    assert shown["events"] == [
        {
            "unix_seconds": 1.0,
            "level": "error",
            "role": harmless,
            "pid": 7,
            "model": harmless,
            "text": harmless,
            "left_out": 0,
        }
    ]
