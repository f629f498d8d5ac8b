"""The dashboard for Grafana: its form. What its queries answer is tried in test_monitoring.py."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

from predictd.server.observe.catalogue import METRICS
from tests.fixtures.dashboard import DASHBOARD, expressions, panels
from tests.fixtures.prometheus import DEPLOY, metrics_named

# What is shown in no panel: what says the same in another way.
_NOT_SHOWN = {"predictd_run_requests_total"}


def test_every_panel_says_what_it_shows() -> None:
    found = panels()
    assert len({panel["id"] for panel in found}) == len(found) > 30
    titles = [panel["title"] for panel in found]
    assert len(set(titles)) == len(titles)
    for panel in found:
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["targets"], panel["title"]


def test_panels_do_not_overlap() -> None:
    for one, other in combinations(panels(), 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
        for at, size in (("x", "w"), ("y", "h"))
    )


def test_every_panel_asks_the_source_that_is_chosen_for_what_is_chosen() -> None:
    for panel in panels():
        for target in panel.get("targets", ()):
            assert (
                panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            )
            assert "$job" in target["expr"], panel["title"]
    names = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    used = {name for expression in expressions().values() for name in re.findall(r"\$(\w+)", expression)}
    assert used - {"__rate_interval"} <= set(names) == {"datasource", "job", "instance", "model"}


def test_every_metric_is_on_the_dashboard() -> None:
    known = {metric.name for metric in METRICS}
    shown = set().union(*map(metrics_named, expressions().values()))
    assert shown <= known
    assert known - shown == _NOT_SHOWN


def test_the_data_source_and_the_folder_of_dashboards_are_provisioned() -> None:
    folder = DEPLOY / "grafana/provisioning"
    source = (folder / "datasources/prometheus.yml").read_text()
    assert "type: prometheus" in source
    interval = re.search(r"timeInterval: (\w+)", source)
    scraped = re.search(r"scrape_interval: (\w+)", (DEPLOY / "prometheus/prometheus.yml").read_text())
    assert interval is not None and scraped is not None
    assert interval[1] == scraped[1]
    assert "type: file" in (folder / "dashboards/predictd.yml").read_text()


def test_the_file_is_as_grafana_would_keep_it() -> None:
    found: dict[str, Any] = DASHBOARD
    assert found["uid"] == "predictd"
    assert "id" not in found, "it is that of one Grafana"
    assert "__inputs" not in json.dumps(found), "provisioning asks nobody"
