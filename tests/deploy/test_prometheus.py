"""The configuration and rules for Prometheus: valid, tested, documented, and about metrics that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from predictd.server.observe.catalogue import METRICS
from tests.fixtures.prometheus import DEPLOY, metrics_named, needs

FOLDER = DEPLOY / "prometheus"
ALERTS = FOLDER / "rules/predictd-alerts.yml"
RECORDING = FOLDER / "rules/predictd-recording.yml"
TESTS = sorted((FOLDER / "tests").iterdir())
RUNBOOK = DEPLOY.parent / "docs/runbook.md"
KNOWN = {metric.name for metric in METRICS}
_ALERT = re.compile(r"^ +- alert: (\w+)\n(.*?)(?=^ +- alert: |\n\n|\Z)", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^ +(summary|description|runbook_url|severity): (.*)$", re.MULTILINE)


def alerts() -> dict[str, str]:
    """The text of each alert."""
    return dict(_ALERT.findall(ALERTS.read_text()))


def promtool(*arguments: str | Path) -> str:
    found = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=110
    )
    output = found.stdout + found.stderr
    assert found.returncode == 0, output
    return output


@needs("promtool")
def test_the_configuration_and_its_rules_are_valid() -> None:
    output = promtool("check", "config", "--lint=all", "--lint-fatal", FOLDER / "prometheus.yml")
    assert "2 rule files found" in output
    assert f"{len(alerts())} rules found" in output


@needs("promtool")
def test_alerts_fire_when_they_shall_and_only_then() -> None:
    promtool("test", "rules", *TESTS)


def test_every_alert_is_tested() -> None:
    assert len(alerts()) == ALERTS.read_text().count("- alert: ")
    tests = "".join(path.read_text() for path in TESTS)
    assert [name for name in alerts() if name not in tests] == []


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_is_wrong_and_where_the_runbook_has_it(name: str) -> None:
    fields = dict(_FIELD.findall(alerts()[name]))
    assert fields.keys() == {"summary", "description", "runbook_url", "severity"}
    assert fields["severity"] in {"page", "ticket"}
    assert fields["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    section = re.search(rf"^### {name}\n(.*?)(?=^#)", RUNBOOK.read_text() + "\n#", re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/runbook.md has no section {name}"
    for part in ("**Means**", "**Look at**", "**Do**"):
        assert part in section[1], part


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (Predictd\w+)$", RUNBOOK.read_text(), re.MULTILINE)) == alerts().keys()


@pytest.mark.parametrize("path", [ALERTS, RECORDING, *TESTS], ids=lambda path: path.name)
def test_metrics_that_rules_name_exist(path: Path) -> None:
    named = metrics_named(path.read_text())
    assert named
    assert named - KNOWN == set()


def test_records_that_alerts_name_exist() -> None:
    record = re.compile(r"\b(?:job_model|predictd):[\w:]+")
    made = set(re.findall(r"- record: (\S+)", RECORDING.read_text()))
    dashboard = (DEPLOY / "grafana/dashboards/predictd.json").read_text()
    assert set(record.findall(ALERTS.read_text())) == made
    assert set(record.findall(dashboard)) <= made
