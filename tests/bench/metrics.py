"""What the daemon says about itself on /metrics."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.samples import Sample

_SETTLE_SECONDS = 5.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the daemon started.

    Attributes:
        ok: Requests answered with status OK.
        runs: Runs of the engine.
        rows: Rows in these runs.
        ran: Requests in these runs, also those whose clients had given up.
    """

    ok: int
    runs: int
    rows: int
    ran: int

    def since(self, before: Counters) -> Counters:
        """What was counted after `before`."""
        return Counters(
            self.ok - before.ok, self.runs - before.runs, self.rows - before.rows, self.ran - before.ran
        )

    @property
    def mean_batch(self) -> float:
        """Rows of an average run."""
        return self.rows / max(1, self.runs)


def _samples(http: str) -> Iterator[Sample]:
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for family in text_string_to_metric_families(text):
        yield from family.samples


def scrape(http: str) -> Counters:
    """Read the counters."""
    names = ("requests_total", "batch_rows_count", "batch_rows_sum", "run_requests_total")
    found = {f"predictd_{name}": 0.0 for name in names}
    for sample in _samples(http):
        if sample.name in found and sample.labels.get("status", "OK") == "OK":
            found[sample.name] += sample.value
    return Counters(*(int(value) for value in found.values()))


def ways(http: str) -> Counter[str]:
    """How many requests went which way through the front end in C."""
    found: Counter[str] = Counter()
    for sample in _samples(http):
        if sample.name == "predictd_native_requests_total":
            found[sample.labels["way"]] += int(sample.value)
    return found


def settled(http: str, ok: int) -> Counters:
    """Read the counters when `ok` requests are counted, or after a while: children report in intervals."""
    until = time.monotonic() + _SETTLE_SECONDS
    while (counters := scrape(http)).ok < ok and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    return counters
