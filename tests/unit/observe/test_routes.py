from __future__ import annotations

import asyncio
import json
import re

import pytest

from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.gauges import BuildInfo, Gauges, LaneGauge, Readiness
from predictd.server.observe.http import Request, Response
from predictd.server.observe.recorder import WorkerRecorder
from predictd.server.observe.routes import build_routes


def get(path: str, readiness: Readiness, aggregate: Aggregate | None = None, **headers: str) -> Response:
    def snapshot() -> Gauges:
        return Gauges(readiness=readiness, build=BuildInfo("1", "2", "3"), start_unix_seconds=0.0)

    async def main() -> Response:
        routes = build_routes(aggregate or Aggregate(), snapshot, lambda: readiness, lambda _: {})
        return await routes[path](Request("GET", path, "", headers))

    return asyncio.run(main())


READY = Readiness(ready=True, lanes=(LaneGauge("a", 1, "READY"),))


def test_health_is_ok_even_when_nothing_is_ready() -> None:
    response = get("/healthz", Readiness(ready=False))
    assert (response.status, response.body) == (200, b"ok\n")


def test_ready_is_one_word_when_all_is_well() -> None:
    response = get("/readyz", READY)
    assert (response.status, response.body) == (200, b"ready\n")


def test_not_ready_says_which_lanes_and_why() -> None:
    response = get(
        "/readyz",
        Readiness(
            ready=False,
            lanes=(
                LaneGauge("a", 1, "READY"),
                LaneGauge("b", 2, "LOADING"),
                LaneGauge("c", 3, "FAILED", "model.onnx: no such\noperator"),
            ),
            reasons=("draining",),
        ),
    )
    assert response.status == 503
    assert response.body.decode().splitlines() == [
        "not ready",
        "draining",
        "b version 2 LOADING",
        "c version 3 FAILED: model.onnx: no such\\noperator",
    ]


def test_a_failed_lane_is_named_when_the_daemon_is_ready_without_it() -> None:
    response = get("/readyz", Readiness(ready=True, lanes=(LaneGauge("c\udcff", 3, "FAILED", "broken"),)))
    assert response.status == 200
    assert response.body == b"ready\nc\\udcff version 3 FAILED: broken\n"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("text/html", "text/plain; version=0.0.4"), ("application/openmetrics-text", "application/openmetrics")],
)
def test_metrics_show_totals_and_gauges(accept: str, content_type: str) -> None:
    aggregate, worker = Aggregate(), WorkerRecorder()
    aggregate.name_lane(1, "a", 1)
    worker.ran(1, 1, 1, 1)
    aggregate.add_worker(worker.take())
    response = get("/metrics", READY, aggregate, accept=accept)
    assert response.status == 200
    assert response.content_type.startswith(content_type)
    assert b'predictd_runs_total{model="a",version="1"} 1.0\n' in response.body
    assert b"predictd_ready 1.0\n" in response.body


def test_other_work_gets_a_turn_between_two_scrapes() -> None:
    order: list[str] = []

    def snapshot() -> Gauges:
        order.append("scrape")
        return Gauges(readiness=READY, build=BuildInfo("1", "2", "3"), start_unix_seconds=0.0)

    async def other_work() -> None:
        while order.count("scrape") < 5:
            order.append("work")
            await asyncio.sleep(0)

    async def main() -> None:
        metrics = build_routes(Aggregate(), snapshot, lambda: READY, lambda _: {})["/metrics"]
        request = Request("GET", "/metrics", "", {})
        await asyncio.gather(*(metrics(request) for _ in range(5)), other_work())

    asyncio.run(main())
    assert "scrape,scrape" not in ",".join(order)


def test_the_page_links_to_every_path() -> None:
    routes = build_routes(Aggregate(), lambda: pytest.fail("no scrape"), lambda: READY, lambda _: {})
    response = get("/", READY)
    assert response.content_type == "text/html; charset=utf-8"
    assert {f"/{path}" for path in re.findall(r'<a href="([a-z.]+)">', response.body.decode())} | {
        "/"
    } == set(routes)


@pytest.mark.parametrize(
    ("query", "model"), [("", ""), ("model=a%20b", "a b"), ("model=a&model=b", "b"), ("other=a", "")]
)
def test_the_document_is_made_for_the_model_that_the_query_names(query: str, model: str) -> None:
    async def main() -> Response:
        routes = build_routes(
            Aggregate(), lambda: pytest.fail("no scrape"), lambda: READY, lambda name: {"of": name}
        )
        return await routes["/status.json"](Request("GET", "/status.json", query, {}))

    response = asyncio.run(main())
    assert response.content_type == "application/json"
    assert json.loads(response.body) == {"of": model}
