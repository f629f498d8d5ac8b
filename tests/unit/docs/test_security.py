"""Each known class of holes has a defence, and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "security.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    """The cells of the table of known classes."""
    table = PAGE.read_text().partition("| class | known as |")[2].splitlines()[2:]
    return [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in table if line.startswith("|")
    ]


def test_each_class_has_a_defence_and_a_test() -> None:
    assert len(rows()) >= 15
    for row in rows():
        assert len(row) == 4, row
        assert all(row), row
        assert _TEST.search(row[3]), row


def test_the_tests_are_there() -> None:
    gone = [
        f"{file}::{name}"
        for file, name in _TEST.findall(PAGE.read_text())
        if not (ROOT / file).exists() or f"def {name}(" not in (ROOT / file).read_text()
    ]
    assert gone == []
    # Nothing that looks like one is left out of the check.
    assert PAGE.read_text().count("::") == len(_TEST.findall(PAGE.read_text()))
