"""How many threads the runs of a lane get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typing_extensions import override

from predictd.engines.api import DType, EngineError, EngineOptions, Signature, TensorSpec
from predictd.engines.cancellation import Cancellation
from predictd.server.config.model_config import Warmup
from predictd.server.worker import lanes
from predictd.server.worker.lanes import load_lane
from predictd.server.worker.runner import LoadedLane
from predictd.server.worker.threads import (
    QUICK_LOAD_SECONDS,
    SHORT_RUN_NS,
    SLOWER_MAX,
    fastest_run_ns,
    is_short,
    may_do_with_fewer,
    one_is_enough,
)
from tests.fixtures import models
from tests.fixtures.frontend import config
from tests.unit.worker.harness import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from predictd.server.config.lane import LaneConfig

X = TensorSpec("x", DType.FP32, (-1, 2))
MODEL = Signature((X,), (X,), batches=True)
LONG_NS, SHORT_NS = 20 * SHORT_RUN_NS, SHORT_RUN_NS // 10


class Closable(FakeEngine):
    """Doubles, and tells whether it was closed."""

    closed = False

    def __init__(self) -> None:
        super().__init__(MODEL, lambda inputs: [one * 2 for one in inputs if one is not None])

    @override
    def close(self) -> None:
        self.closed = True


class Threaded:
    """Loads engines whose runs take as long as is said of their number of threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, took_ns: Callable[[int], int]) -> None:
        self.loaded: list[tuple[int, Closable]] = []
        self._took_ns = took_ns
        monkeypatch.setattr(lanes, "resolve", lambda _: self._load)
        monkeypatch.setattr(lanes, "fastest_run_ns", self._measured)

    def _load(self, _: Path, options: EngineOptions) -> Closable:
        engine = Closable()
        self.loaded.append((options.threads, engine))
        return engine

    def _measured(self, lane: LoadedLane) -> int:
        return self._took_ns(lane.config.threads)

    @property
    def open(self) -> list[int]:
        """The numbers of threads of the engines that are not closed."""
        return [threads for threads, engine in self.loaded if not engine.closed]


def load(lane: LaneConfig) -> LoadedLane:
    return load_lane(lane, None, 1, 0, Cancellation(), lambda _: None).lane


def test_short_runs_have_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Threaded(monkeypatch, lambda _: SHORT_NS)
    lane = load(config(path="/m.onnx", threads=4))
    assert (lane.config.threads, engines.open) == (1, [1])


@pytest.mark.parametrize(
    "took_ns",
    [
        pytest.param(lambda _: LONG_NS, id="long"),
        pytest.param(lambda threads: SHORT_NS if threads > 1 else 2 * SHORT_NS, id="short with several only"),
        pytest.param(lambda _: 0, id="nothing is known"),
    ],
)
def test_others_keep_theirs(monkeypatch: pytest.MonkeyPatch, took_ns: Callable[[int], int]) -> None:
    engines = Threaded(monkeypatch, took_ns)
    lane = load(config(path="/m.onnx", threads=4))
    assert (lane.config.threads, engines.open) == (4, [4])


def test_who_asked_for_threads_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Threaded(monkeypatch, lambda _: SHORT_NS)
    lane = load(config(path="/m.onnx", threads=4, threads_asked=True))
    assert (lane.config.threads, [threads for threads, _ in engines.loaded]) == (4, [4])


def test_an_engine_that_fails_when_it_is_measured_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(threads: int) -> int:
        if threads == 1:
            raise EngineError("no more")
        return SHORT_NS

    engines = Threaded(monkeypatch, fails)
    with pytest.raises(EngineError, match="no more"):
        load(config(path="/m.onnx", threads=4))
    assert (len(engines.loaded), engines.open) == (2, [])


def test_an_engine_that_cannot_be_loaded_again_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = Threaded(monkeypatch, lambda _: SHORT_NS)
    first = engines._load

    def once(path: Path, options: EngineOptions) -> Closable:
        if engines.loaded:
            raise EngineError("no more")
        return first(path, options)

    monkeypatch.setattr(lanes, "resolve", lambda _: once)
    with pytest.raises(EngineError, match="no more"):
        load(config(path="/m.onnx", threads=4))
    assert engines.open == []


@pytest.mark.parametrize(
    ("changed", "device", "load_seconds", "may"),
    [
        ({}, "cpu", 0.1, True),
        ({"threads": 1}, "cpu", 0.1, False),
        ({"threads_asked": True}, "cpu", 0.1, False),
        ({"engine": "torch"}, "cpu", 0.1, False),
        ({"engine": "my.module:load"}, "cpu", 0.1, False),
        ({"engine": "openvino"}, "cpu", 0.1, True),
        ({"warmup": Warmup(mode="none")}, "cpu", 0.1, False),
        ({"warmup": Warmup(mode="random")}, "cpu", 0.1, True),
        ({}, "0", 0.1, False),
        ({}, "cpu", 2 * QUICK_LOAD_SECONDS, False),
    ],
)
def test_who_may_do_with_fewer(
    changed: dict[str, Any], device: str, load_seconds: float, *, may: bool
) -> None:
    assert may_do_with_fewer(config(**{"threads": 2, **changed}), device, load_seconds) is may


def test_what_is_short_and_enough() -> None:
    assert is_short(SHORT_RUN_NS - 1)
    assert not is_short(SHORT_RUN_NS)
    assert not is_short(0)
    assert one_is_enough(int(SLOWER_MAX * 1000), 1000)
    assert not one_is_enough(int(SLOWER_MAX * 1000) + 1, 1000)


def test_a_run_is_measured_with_as_many_rows_as_are_warm(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "mlp.onnx")
    lane = load(config(path=str(path), threads=1, max_batch_size=16))
    ran: list[int] = []
    run = lane.engine.run

    def watched(inputs: Any, out: Any = None) -> Any:
        ran.append(len(inputs[0]))
        return run(inputs, out)

    lane.engine.run = watched  # type: ignore[method-assign]
    assert fastest_run_ns(lane) > 0
    assert ran[0] == 1
    # On a machine so slow that one row takes long, that is all there is to know.
    assert set(ran) in ({1, 16}, {1})


def test_guessed_inputs_are_not_measured() -> None:
    text = TensorSpec("t", DType.BYTES, (-1, 2))
    engine = FakeEngine(Signature((text,), (text,), batches=True), lambda _: [])
    lane = LoadedLane(config(), engine, engine.signature)
    assert fastest_run_ns(lane) == 0
    assert engine.runs == []


def test_onnx_runtime_answers_the_same_with_fewer(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "mlp.onnx")
    row = np.random.default_rng(1).standard_normal((3, 64), np.float32)
    fewer, asked = (
        load(config(path=str(path), threads=2, threads_asked=asked)).engine.run([row])[0]
        for asked in (False, True)
    )
    np.testing.assert_allclose(fewer, asked, rtol=1e-5)
