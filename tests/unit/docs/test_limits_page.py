"""The page of limits has all options that are limits, and every value that it names is the code's."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

from predictd.server.config.settings import options

PAGE = (Path(__file__).parents[3] / "docs/limits.md").read_text()
_ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and "`" in line]
_CONSTANT = re.compile(r"`(predictd\.[\w.]+)\.((?:[A-Z_]{2,}|LIMITS\.\w+))`")
_FLAG = re.compile(r"`(--[a-z-]+)`")
_VALUE = re.compile(r"`([0-9][^`]*|auto)`")
# Limits of something else than what clients and files can take.
_OTHERS = {
    *("max_batch_size", "max_delay", "cache_limit"),
    *("load_timeout", "hang_timeout", "drain_timeout"),
}


def limits() -> list[str]:
    return [
        option.flag
        for option in options()
        if re.search(r"^max_|_limit$|_timeout$", option.key) and option.key not in _OTHERS
    ]


@pytest.mark.parametrize("flag", limits())
def test_every_option_that_is_a_limit_is_there(flag: str) -> None:
    assert any(f"`{flag}`" in row for row in _ROWS)


@pytest.mark.parametrize("row", _ROWS)
def test_values_are_those_of_the_code(row: str) -> None:
    cells = row.split(" | ")
    names = [*_FLAG.findall(cells[1]), *_CONSTANT.findall(cells[1])]
    values = _VALUE.findall(cells[2])
    defaults = {option.flag: option.default_text for option in options()}
    assert values
    assert [str(_value(name, defaults)) for name in names] == values


@pytest.mark.parametrize("row", _ROWS)
def test_every_limit_is_met_by_a_test(row: str) -> None:
    assert re.search(r"`tests/[\w/]+\.py` \|$", row)


def _value(name: str | tuple[str, str], defaults: dict[str, str]) -> object:
    if isinstance(name, str):
        return defaults[name]
    module, attribute = name
    return reduce(getattr, attribute.split("."), importlib.import_module(module))
