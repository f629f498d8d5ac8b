"""The generated tables of the documentation are those of the code. `make docs` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from predictd.server.config.options_table import defaults_table
from predictd.server.observe.catalogue import METRICS

DOCS = Path(__file__).parents[3] / "docs"
_TABLE = re.compile(r"^\|.*\n(?:\|.*\n)+", re.MULTILINE)


def metrics_table() -> str:
    """All metrics as a Markdown table."""
    rows = [
        (f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in METRICS
    ]
    lines = [("Metric", "Type", "Labels", "Meaning"), ("---",) * 4, *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


TABLES = {"configuration.md": defaults_table, "metrics.md": metrics_table}


@pytest.mark.parametrize("page", TABLES)
def test_the_first_table_of_the_page_is_the_codes(page: str) -> None:
    assert _first_table(page) == TABLES[page](), "run: make docs"


def write() -> None:
    """Put the tables of now into the pages."""
    for page, table in TABLES.items():
        path = DOCS / page
        before, _, after = path.read_text().partition(_first_table(page))
        path.write_text(before + table() + after)


def _first_table(page: str) -> str:
    found = _TABLE.search((DOCS / page).read_text())
    assert found is not None, f"{page} has no table"
    return found[0]


if __name__ == "__main__":
    write()
