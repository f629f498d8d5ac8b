"""Which batches an engine is measured with, and in which order what is done. The engine is a fake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from predictd.engines.api import Array, DType, Signature, TensorSpec
from predictd.server.config.settings import Settings
from predictd.server.measure import engine_bench
from predictd.server.measure.engine_bench import BenchWish, bench_engine
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.engines import Window
from predictd.server.measure.inputs import MakeUp
from predictd.server.measure.messages import Profiled
from predictd.server.measure.subject import Subject, Wish, subject
from tests.fixtures import models

X, IDS = TensorSpec("x", DType.FP32, (-1, 2)), TensorSpec("ids", DType.INT64, (-1, -1))
SAY = "say how large with --shape ids:Nx1, or give inputs with --inputs"
FIXED = Signature((TensorSpec("x", DType.FP32, (1, 2)),), (), batches=False)


class FakeEngines:
    """Notes what it is asked."""

    signature = Signature((X,), (), batches=True)
    engine = "fake"
    load_seconds = 0.5
    asked: ClassVar[list[Any]]

    def __init__(self, subject: Subject, *, profile: bool = False) -> None:
        self.asked.append(("load", len(subject.plans), profile))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("close")

    def take(self, inputs: Sequence[Array | None]) -> None:
        self.asked.append([None if array is None else array.shape for array in inputs])

    def time(self, seconds: float, *, most_runs: int = 0, least_runs: int = 1) -> Window:
        self.asked.append((seconds, most_runs, least_runs))
        return Window(20, 40.0, np.full(20, 10**6), 1.0, None)

    def profile(self, seconds: float) -> Profiled:
        assert seconds > 0
        return Profiled(layers=[], runs=3)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeEngines]:
    class Mine(FakeEngines):
        asked: ClassVar[list[Any]] = []

    monkeypatch.setattr(engine_bench, "Engines", Mine)
    return Mine


@pytest.fixture
def model(tmp_path: Path) -> Subject:
    return subject(
        Wish(models.affine(tmp_path / "m.onnx"), instances=2, threads=1), Settings(cache_limit_bytes=0)
    )


def shapes(fake: type[FakeEngines]) -> list[Any]:
    return [each[0] for each in fake.asked if isinstance(each, list)]


def quiet(_: str) -> None:
    pass


def test_every_batch_size_is_warmed_up_and_measured(fake: type[FakeEngines], model: Subject) -> None:
    wish = BenchWish((2, 5), seconds=3.0, most_runs=4, warm_up_seconds=0.5, profile=True)
    result = bench_engine(model, wish, quiet)
    assert fake.asked == [
        ("load", 2, False),
        *([(2, 2)], (0.5, 0, 1), (3.0, 4, 4)),
        *([(5, 2)], (0.5, 0, 1), (3.0, 4, 4)),
        "close",
        # In one process, loaded anew for each size.
        *(("load", 1, True), [(2, 2)], "close"),
        *(("load", 1, True), [(5, 2)], "close"),
    ]
    assert [(each.rows, each.rows_per_second, each.shapes) for each in result.batches] == [
        (2, 80.0, {"x": (2, 2)}),
        (5, 200.0, {"x": (5, 2)}),
    ]
    assert all(each.profile is not None for each in result.batches)


@pytest.mark.parametrize(
    ("signature", "wish", "expected"),
    [
        (FakeEngines.signature, BenchWish(), [(1, 2), (8, 2), (32, 2)]),
        (Signature((X,), (), batches=True, max_rows=8), BenchWish(), [(1, 2), (8, 2)]),
        (FIXED, BenchWish(), [(1, 2)]),
        (Signature((IDS,), (), batches=True), BenchWish((3,), make_up=MakeUp({"ids": (-1, 7)})), [(3, 7)]),
        (Signature((IDS,), (), batches=True), BenchWish(make_up=MakeUp({"ids": (4, 7)})), [(4, 7)]),
    ],
)
def test_the_batch_sizes(
    signature: Signature, wish: BenchWish, expected: Any, fake: type[FakeEngines], model: Subject
) -> None:
    fake.signature = signature
    bench_engine(model, wish, quiet)
    assert shapes(fake) == expected


@pytest.mark.parametrize(
    ("signature", "wish", "reason"),
    [
        (FIXED, BenchWish((1,)), "the model does not batch: leave --batch-sizes out"),
        (
            Signature((X,), (), batches=True, max_rows=8),
            BenchWish((4, 16)),
            "the engine takes 8 rows at most, not 16",
        ),
        (
            FakeEngines.signature,
            BenchWish((4,), make_up=MakeUp({"x": (2, 2)})),
            "batch sizes 2 in --shape: write N first in each, and the sizes with --batch-sizes",
        ),
        (
            Signature((IDS,), (), batches=True),
            BenchWish((4,)),
            f"input 'ids' has dimensions that vary, ?x?: {SAY}",
        ),
    ],
)
def test_batches_that_cannot_be_are_refused(
    signature: Signature, wish: BenchWish, reason: str, fake: type[FakeEngines], model: Subject
) -> None:
    fake.signature = signature
    with pytest.raises(MeasureError) as caught:
        bench_engine(model, wish, quiet)
    assert str(caught.value) == f"{model.label}: {reason}"


def test_batches_are_made_of_the_rows_of_files(
    fake: type[FakeEngines], model: Subject, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2), np.float32))
    result = bench_engine(model, BenchWish((1, 7), inputs=tmp_path / "x.npy"), quiet)
    assert shapes(fake) == [(1, 2), (7, 2)]
    assert result.inputs == f"{tmp_path}/x.npy"
