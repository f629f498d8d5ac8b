"""How a daemon batches, from its /metrics."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from predictd.server.bench.access import HTTPS, PLAIN, Access
from predictd.server.bench.results import Batches
from predictd.server.measure.engine_process import MeasureError

_SECONDS = 10.0
_NAME = "predictd_batch_rows"


@dataclass(frozen=True, slots=True)
class Runs:
    """Totals since the daemon started.

    Attributes:
        rows: In all runs.
        up_to: Runs by the upper end of their bucket, all smaller ones among them.
    """

    rows: float = 0.0
    up_to: Counter[str] = field(default_factory=Counter)


def scrape(address: str, access: Access = PLAIN) -> Runs:
    """Read them from HOST:PORT, or https://HOST:PORT. Raises MeasureError if nothing answers there."""
    url = f"{address if address.startswith(HTTPS) else f'http://{address}'}/metrics"
    # No proxy is asked: what is measured is near.
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if address.startswith(HTTPS):
        handlers.append(urllib.request.HTTPSHandler(context=access.plain_context()))
    opener = urllib.request.build_opener(*handlers)
    opener.addheaders = [*access.metadata]
    try:
        with opener.open(url, timeout=_SECONDS) as answer:
            return read(answer.read().decode())
    except http.client.BadStatusLine as error:
        how = "with" if address.startswith(HTTPS) else "without"
        raise MeasureError(f"{url}: what answers there speaks no HTTP/1.1 {how} TLS") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise MeasureError(f"{url}: {_reason(error)}") from error


def _reason(error: Exception) -> object:
    """What urllib wraps once more."""
    cause = error.reason if type(error) is urllib.error.URLError else error
    return (isinstance(cause, OSError) and cause.strerror) or cause


def read(text: str) -> Runs:
    """What a page says, of all models together."""
    rows, up_to = 0.0, Counter[str]()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{_NAME}_sum":
                rows += sample.value
            elif sample.name == f"{_NAME}_bucket":
                up_to[sample.labels["le"]] += int(sample.value)
    return Runs(rows, up_to)


def between(before: Runs, after: Runs) -> Batches:
    """What was run meanwhile."""
    ends = sorted(after.up_to, key=float)
    totals = [after.up_to[end] - before.up_to[end] for end in ends]
    each = [total - less for total, less in zip(totals, [0, *totals], strict=False)]
    by_rows = {f"{float(end):g}": runs for end, runs in zip(ends, each, strict=True) if runs}
    return Batches(totals[-1] if totals else 0, int(after.rows - before.rows), by_rows)
