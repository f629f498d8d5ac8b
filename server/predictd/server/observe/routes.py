"""What the supervisor answers over HTTP: the status page and its numbers, the metrics, liveness and readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qs

from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.escape import escape_controls
from predictd.server.observe.gauges import Gauges, LaneGauge, Readiness
from predictd.server.observe.http import Handler, Request, Response
from predictd.server.observe.page import status_page
from predictd.server.observe.status import Document, encode


def build_routes(
    aggregate: Aggregate,
    gauges: Callable[[], Gauges],
    readiness: Callable[[], Readiness],
    status: Callable[[str], Document],
) -> Mapping[str, Handler]:
    """The handlers of every path.

    Args:
        aggregate: The totals of the children.
        gauges: Takes a snapshot for /metrics.
        readiness: The part of it that /readyz needs, which is asked for often and reads no other process.
        status: Makes the document of the status page, with the last minutes of a model, or of all for "".
    """

    async def page(_: Request) -> Response:
        return status_page()

    async def health(_: Request) -> Response:
        return Response(b"ok\n")

    async def ready(_: Request) -> Response:
        return _ready(readiness())

    return {
        "/": page,
        "/status.json": _status_handler(status),
        "/metrics": _metrics_handler(aggregate, gauges),
        "/healthz": health,
        "/readyz": ready,
    }


def _metrics_handler(aggregate: Aggregate, gauges: Callable[[], Gauges]) -> Handler:
    turn = asyncio.Lock()

    async def metrics(request: Request) -> Response:
        # prometheus_client takes 60 ms to import, which the start of the daemon does without.
        from predictd.server.observe.exposition import render

        # A scrape of hundreds of busy models takes 100 ms. One at a time, and with a turn of the loop before
        # each, impatient scrapers cannot keep the supervisor from its children.
        async with turn:
            await asyncio.sleep(0)
            rendered = render(aggregate, gauges(), request.headers.get("accept", ""))
        return Response(rendered.body, content_type=rendered.content_type)

    return metrics


def _status_handler(status: Callable[[str], Document]) -> Handler:
    turn = asyncio.Lock()

    async def document(request: Request) -> Response:
        # As with metrics: many pages that are open at once must not keep the supervisor from its children.
        async with turn:
            await asyncio.sleep(0)
            body = encode(status(parse_qs(request.query).get("model", [""])[-1]))
        return Response(body, content_type="application/json")

    return document


def _ready(readiness: Readiness) -> Response:
    lines = [
        "ready" if readiness.ready else "not ready",
        *readiness.reasons,
        *(_lane_line(lane) for lane in readiness.lanes if lane.state != "READY"),
    ]
    status = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
    text = "".join(f"{escape_controls(line)}\n" for line in lines)
    return Response(text.encode("utf-8", "backslashreplace"), status)


def _lane_line(lane: LaneGauge) -> str:
    line = f"{lane.model} version {lane.version} {lane.state}"
    return f"{line}: {lane.reason}" if lane.reason else line
