"""Options of `predictd bench`: none is ignored, and those that make no sense are refused in one line."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from predictd.server.cli.main import predictd


def complaint(*arguments: str) -> str:
    error = CliRunner().invoke(predictd, ["bench", *arguments], standalone_mode=False).exception
    assert isinstance(error, click.ClickException), error
    return error.format_message()


def test_options_of_the_other_way_to_measure() -> None:
    assert complaint("mlp", "--threads", "2") == "--threads needs --engine-only"
    assert complaint("mlp", "--batch-sizes", "2") == "--batch-sizes needs --engine-only"
    assert complaint("m", "--engine-only", "--rate", "5") == "--rate is for a server, not for --engine-only"
    assert complaint("m", "--engine-only", "--html", "x") == "--html is for a server, not for --engine-only"
    assert complaint("one", "two", "--engine-only") == "--engine-only measures one model at a time"


def test_options_that_exclude_each_other() -> None:
    for more in (("--concurrency", "4"), ("--rate", "1,2")):
        assert "at most one --rate" in complaint("mlp", "--slo", "p99=20ms", *more)
    assert complaint() == "say what to measure: MODEL"
    assert "--shape and --range" in complaint("mlp", "--inputs", ".", "--shape", "x:1")


@pytest.mark.parametrize(
    "option",
    [
        ("--slo", "p99"),
        ("--slo", "p98=20ms"),
        ("--slo", "p99=20"),
        ("--slo", "p99=0"),
        ("--rate", "0"),
        ("--rate", "1,x"),
        ("--rate", "inf"),
        ("--concurrency", "1.5"),
        ("--deadline", "3"),
    ],
)
def test_values_that_cannot_be_read(option: tuple[str, str]) -> None:
    assert option[0] in complaint("mlp", *option)


def test_files_that_are_no_bench(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}")
    pair = ("--compare", str(file), str(file))
    assert "not the JSON of a bench" in complaint(*pair)
    assert "measures nothing" in complaint("mlp", *pair)
    assert "--rate" in complaint(*pair, "--rate", "5")
