"""Parts of `make bench`: the page that it writes, what its clients count."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import pytest

from tests.bench import cases, markdown
from tests.bench.payload import Payload
from tests.bench.scenarios import SCENARIOS
from tests.bench.table import Ratio, Report, Spread, Table
from tests.bench.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

MARKED = f"# Page\n\n{markdown.BEGIN}\nold\n{markdown.END}\n\nThe rest.\n"


def report(value: float) -> Report:
    ratio = Ratio("a over b", Spread.of([value]), 0.5, "above")
    return Report([ratio], [Table("Rates", ("", "1/s"), [("a", "7")])], ["it rained", "it rained"])


def test_results_take_the_place_of_those_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(MARKED)
    for value, verdict in ((0.25, "MISSED"), (0.75, "met")):
        markdown.write(markdown.page(str(page)), report(value), {"processor": "abacus"}, quick=True)
        text = page.read_text()
        assert text.startswith("# Page\n\n")
        assert text.endswith(f"{markdown.END}\n\nThe rest.\n")
        assert "old" not in text
        assert text.count(markdown.BEGIN) == text.count("it rained") == 1
        assert f"{value:.3f} ({value:.3f} … {value:.3f})" in text
        assert verdict in text
        assert "processor abacus" in text
        assert "A quick run" in text


@pytest.mark.parametrize("text", [None, "", markdown.BEGIN, f"{markdown.END}{markdown.BEGIN}"])
def test_a_page_without_marks_is_refused_before_anything_is_measured(
    tmp_path: Path, text: str | None
) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    with pytest.raises(argparse.ArgumentTypeError, match=r"page\.md"):
        markdown.page(str(page))


def test_tables_that_are_alike_become_one() -> None:
    whole = Report()
    for name in ("a", "b"):
        whole.add(Report(tables=[Table("Rates", ("", "1/s"), [(name, "7")]), Table(name, ("",), [("x",)])]))
    assert [each.title for each in whole.tables] == ["Rates", "a", "b"]
    assert whole.tables[0].rows == [("a", "7"), ("b", "7")]


def tally(*, may_refuse: bool) -> Tally:
    payload = Payload([b"q", b"r"], [b"a", b"longer"], [1, 6], [], ["m", "n"])
    now = time.monotonic_ns()
    return Tally(payload, now, now + 10**12, 1, may_refuse=may_refuse)


def test_refusals_are_no_errors_where_they_may_be() -> None:
    for may_refuse in (True, False):
        counted = tally(may_refuse=may_refuse)
        for reason in ("grpc-status 8", "grpc-status 4", "grpc-status 13"):
            counted.failed(reason)
        assert counted.refused == 2 * may_refuse
        assert sum(counted.errors.values()) == 3 - 2 * may_refuse
        assert "grpc-status 13" in counted.errors


def test_an_answer_must_be_that_to_its_request() -> None:
    counted = tally(may_refuse=False)
    now = time.monotonic_ns()
    for index, answer in ((0, b"a"), (1, b"longer"), (0, b"b")):
        counted.answered(index, now, now + 5, answer)
    assert (counted.completed, counted.verified, counted.wrong) == (3, 3, 1)
    assert list(counted.indexes) == [0, 1, 0]


def test_models_are_asked_in_turns() -> None:
    one = Payload([b"1", b"2"], [b"a", b"b"], [1, 1], ["int64", "int64"], ["m", "m"])
    other = Payload([b"3", b"4"], [b"c", b"d"], [1, 1], ["float32", "float32"], ["n", "n"])
    both = one.in_turns_with(other)
    assert both.bodies == [b"1", b"3", b"2", b"4"]
    assert both.models == ["m", "n", "m", "n"]
    assert both.dtypes[1] == "float32"


def test_every_model_is_a_scenario_and_the_named_ones_are_not_published() -> None:
    assert cases.PUBLISHED.keys() <= {name for name, each in SCENARIOS.items() if each.published}
    assert not any(SCENARIOS[name].published for name in cases.FURTHER)
