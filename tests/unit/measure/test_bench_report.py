"""What a bench looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from predictd.engines.api import Signature
from predictd.server.config.settings import Settings
from predictd.server.measure.bench_report import data, text
from predictd.server.measure.engine_bench import BatchResult, BenchResult
from predictd.server.measure.latency import Latency
from predictd.server.measure.messages import Layer, Profiled, Stages
from predictd.server.measure.subject import Wish, subject
from tests.fixtures import models

LATENCY = Latency(0.001, 0.002, 0.0015, 0.003, 0.0035, 0.004, 0.0045, 0.005)
LAYERS = [Layer(f"l{number}", "Gemm", 10, number * 1e-3) for number in range(25)]


@pytest.fixture
def result(tmp_path: Path) -> BenchResult:
    path = models.affine(tmp_path / "m.onnx")
    found = subject(Wish(path, threads=1, instances=1), Settings(cache_limit_bytes=0))
    plain = BatchResult(1, {"x": (1, 4)}, 100, 500.0, LATENCY, 0.98, None)
    staged = replace(
        plain, rows=8, stages=Stages(1e-6, 2e-6, 3e-3, 4e-6), profile=Profiled(layers=LAYERS, runs=10)
    )
    subject_ = replace(found, label="m.onnx", size_bytes=1536, warnings=("too many threads",))
    return BenchResult(
        subject_, "onnxruntime", Signature((), (), batches=True), 0.25, "x.npz", (plain, staged)
    )


def test_the_report_has_what_was_measured(result: BenchResult) -> None:
    blocks = list(text(result))
    assert blocks[0] == "m.onnx: onnxruntime, 1 process with 1 thread, 1.5 KiB, loaded in 250 ms"
    assert blocks[1:3] == ["note: too many threads", "inputs of the first: x 1x4; x.npz"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in "\n".join(blocks[3:]).splitlines()
    ]
    assert rows[2] == [
        *("1", "500", "100", "1 ms", "2 ms", "1.5 ms", "3 ms", "3.5 ms", "4 ms", "4.5 ms", "5 ms", "0.98")
    ]
    assert ["8", "1 µs", "2 µs", "3 ms", "4 µs"] in rows
    assert ["8.0%", "2.4 ms", "1", "Gemm", "l24"] in rows
    # Five of them, from 0 to 4.
    assert ["3.3%", "1 ms", "", "", "5 others"] in rows


def test_programs_get_every_layer(result: BenchResult) -> None:
    plain, staged = data(result)["batches"]
    assert (plain["stages"], plain["layers"]) == (None, None)
    assert staged["stages"]["compute_seconds"] == 3e-3
    assert len(staged["layers"]) == 25
    assert staged["layers"][24]["seconds_per_run"] == pytest.approx(2.4e-3)
