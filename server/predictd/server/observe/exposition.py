"""The text that Prometheus reads: the aggregate and the gauges, metric by metric in the catalogue's order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from predictd.server.observe.aggregate import Aggregate
from predictd.server.observe.catalogue import METRICS, MetricSpec
from predictd.server.observe.gauges import Gauges
from predictd.server.observe.samples import HISTOGRAMS, NUMBERS, Distribution, Labels, View

# choose_encoder compares versions as numbers and copies them into the Content-Type: it must see no others.
_ODD_VERSION = re.compile(r"version=(?!\d{1,3}(\.\d{1,3}){0,2}\s*([;,]|$))", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A scrape's answer."""

    body: bytes
    content_type: str


def render(aggregate: Aggregate, gauges: Gauges, accept: str) -> Rendered:
    """The metrics in the format that an Accept header asks for, by default the Prometheus text format."""
    encode, content_type = choose_encoder("" if _ODD_VERSION.search(accept) else accept)
    return Rendered(encode(MetricsCollector(View(aggregate, gauges))), content_type)


class MetricsCollector(Collector):
    """What prometheus_client iterates over."""

    def __init__(self, view: View) -> None:
        self._view = view

    # typing.override needs Python 3.12.
    def collect(self) -> Iterator[Metric]:  # type: ignore[explicit-override]
        """One family a metric, those without series included."""
        for spec in METRICS:
            yield (_histogram if spec.kind == "histogram" else _numbers)(spec, self._view)


def _numbers(spec: MetricSpec, view: View) -> Metric:
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    family = kind(spec.name, spec.help, labels=spec.labels)
    for labels, value in NUMBERS[spec.name](view).items():
        family.add_metric(_encodable(labels), float(value))
    return family


def _histogram(spec: MetricSpec, view: View) -> Metric:
    family = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
    for labels, value in HISTOGRAMS[spec.name](view).items():
        family.add_metric(_encodable(labels), _buckets(value), value.total)
    return family


def _buckets(value: Distribution) -> list[tuple[str, float]]:
    """Each bound as text, with the observations up to it."""
    bounds = (*map(floatToGoString, value.bounds), "+Inf")
    return list(zip(bounds, map(float, accumulate(value.buckets)), strict=True))


def _encodable(labels: Labels) -> Labels:
    # A model folder may have a name that is no UTF-8. One such label would fail the whole scrape.
    return tuple(label.encode("utf-8", "backslashreplace").decode() for label in labels)
