"""The verdict, and what a comparison looks like."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from predictd.server.measure.statistics import compare
from predictd.server.optimize.accuracy import OutputAccuracy
from predictd.server.optimize.comparison import (
    Comparison,
    MeasuredModel,
    Model,
    Speed,
    Speedup,
    Thresholds,
    Verdict,
    judge,
)
from predictd.server.optimize.report import markdown, write_report

OUTPUT = OutputAccuracy("y", 0.9999, 0.9995, 0.01, 0.98, 1000, 0)
SPEEDUPS = (Speedup(1, compare([1.2] * 5)), Speedup(8, compare([2.0] * 5)))


def measured(name: str, size_bytes: int, per_second: float) -> MeasuredModel:
    speeds = tuple(Speed(rows, 0.001 * rows, 0.002 * rows, per_second * rows, 100) for rows in (1, 8))
    return MeasuredModel(Model(Path(f"/{name}"), name), "onnxruntime", 2, size_bytes, 0.5, speeds)


COMPARISON = Comparison(
    measured("a.onnx", 4 << 20, 100.0),
    measured("b<.onnx", 1 << 20, 150.0),
    16,
    (OUTPUT, OutputAccuracy("text", None, None, None, None, 4, 1)),
    SPEEDUPS,
    Verdict(good=False, reasons=("output 'text': 1 texts differ",)),
    ("a note",),
)


@pytest.mark.parametrize(
    ("output", "thresholds", "reasons"),
    [
        ({}, Thresholds(), []),
        ({}, Thresholds(0.9995, 0.01, 0.98, 1.2), []),
        ({}, Thresholds(None), []),
        (
            {"worst_cosine": 0.9},
            Thresholds(),
            ["output 'y': the cosine is 0.9 in the worst sample, below 0.999"],
        ),
        ({}, Thresholds(max_abs_error=0.001), ["output 'y': the largest error is 0.01, above 0.001"]),
        (
            {},
            Thresholds(min_top1_agreement=0.99),
            ["output 'y': the class is the same in 0.98 of the rows, below 0.99"],
        ),
        ({"top1_agreement": None}, Thresholds(), []),
        (
            {"top1_agreement": None},
            Thresholds(min_top1_agreement=0.99),
            ["no output looks like scores of classes, so whether the class is the same is not known"],
        ),
        ({}, Thresholds(min_speedup=1.5), ["batch size 1: 1.2 times the throughput, not 1.5"]),
        (
            {"broken_values": 3},
            Thresholds(None),
            ["output 'y': 3 values are NaN or infinite in one of the models alone"],
        ),
        (
            {"compared_values": 0},
            Thresholds(None),
            ["output 'y': not one value is a finite number, so nothing was compared"],
        ),
        (
            {"cosine": None, "worst_cosine": None, "broken_values": 2},
            Thresholds(),
            ["output 'y': 2 texts differ"],
        ),
    ],
)
def test_every_threshold_has_its_reason(
    output: dict[str, float | None], thresholds: Thresholds, reasons: list[str]
) -> None:
    verdict = judge([replace(OUTPUT, **output)], SPEEDUPS, thresholds)  # type: ignore[arg-type]
    assert verdict == Verdict(not reasons, tuple(reasons))


def test_the_page_has_what_was_measured() -> None:
    lines = markdown("a and b", COMPARISON).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert ["size", "4 MiB", "1 MiB", "0.25"] in cells
    assert ["1", "100", "1 ms", "2 ms", "150", "1 ms", "2 ms", "1.2 (1.2-1.2)", "better"] in cells
    assert ["y", "0.999900", "0.999500", "0.01", "98.00%", "0"] in cells
    assert ["text", "", "", "", "", "1"] in cells
    assert "note: a note" in lines
    assert "not good: output 'text': 1 texts differ" in lines


def test_a_report_is_three_files(tmp_path: Path) -> None:
    page, data, plot = write_report(tmp_path / "new" / "folder", "t", COMPARISON)
    assert page.read_text() == markdown("t", COMPARISON)
    read = json.loads(data.read_bytes())
    assert read["candidate"]["model"] == {"path": "/b<.onnx", "label": "b<.onnx", "version": None}
    assert read["speedups"][1]["ratio"] == 2.0
    assert read["verdict"] == {"good": False, "reasons": ["output 'text': 1 texts differ"]}
    root = ET.fromstring(plot.read_text())
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
    assert "candidate: b<.onnx" in {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
