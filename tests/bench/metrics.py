"""What the daemon says about itself on /metrics."""

from __future__ import annotations

import time
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_SETTLE_SECONDS = 5.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the daemon started.

    Attributes:
        ok: Requests answered with status OK.
        runs: Runs of the engine.
        rows: Rows in these runs.
    """

    ok: int
    runs: int
    rows: int

    def since(self, before: Counters) -> Counters:
        """What was counted after `before`."""
        return Counters(self.ok - before.ok, self.runs - before.runs, self.rows - before.rows)

    @property
    def mean_batch(self) -> float:
        """Rows of an average run."""
        return self.rows / max(1, self.runs)


def scrape(http: str) -> Counters:
    """Read the counters."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {"predictd_requests_total": 0.0, "predictd_batch_rows_count": 0.0, "predictd_batch_rows_sum": 0.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in found and sample.labels.get("status", "OK") == "OK":
                found[sample.name] += sample.value
    ok, runs, rows = (int(value) for value in found.values())
    return Counters(ok, runs, rows)


def settled(http: str, ok: int) -> Counters:
    """Read the counters when `ok` requests are counted, or after a while: children report in intervals."""
    until = time.monotonic() + _SETTLE_SECONDS
    while (counters := scrape(http)).ok < ok and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    return counters
