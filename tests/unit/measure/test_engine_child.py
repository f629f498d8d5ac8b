"""What a process does with an engine, without the process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from predictd.engines.api import Array, DType, EngineError, LayerTime, RunTimings, Signature, TensorSpec
from predictd.server.measure.engine_child import Runs
from predictd.server.measure.inputs import write_inputs
from predictd.server.measure.messages import Layer, Profile, Profiled, Stages, Time

OUTPUTS = (
    TensorSpec("y", DType.FP32, (-1, 2)),
    TensorSpec("half", DType.BF16, (-1,)),
    TensorSpec("text", DType.BYTES, (-1,)),
)
SIGNATURE = Signature(
    (TensorSpec("x", DType.FP32, (-1, 2)), TensorSpec("words", DType.BYTES, (-1,))), OUTPUTS[:1], batches=True
)
X, WORDS = np.array([[1, 2], [3, 4]], np.float32), np.array([b"a", b""], object)


class Fake:
    """Answers with what it got; counts what it wrote into."""

    name = "fake"

    def __init__(self, signature: Signature = SIGNATURE) -> None:
        self.signature = signature
        self.given: list[tuple[list[Array | None], bool]] = []

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        self.given.append((list(inputs), out is not None))
        x = inputs[0]
        assert x is not None
        one = np.array([0x3FC0, 0xC000], np.uint16)
        return [x, one, np.array([b"", b"a\0"], object)][: len(self.signature.outputs)]

    def close(self) -> None:
        raise AssertionError


class Timed(Fake):
    """Knows where the time of a run goes: ever more."""

    def timings(self) -> RunTimings:
        runs = len(self.given)
        return RunTimings(runs * 1.0, runs * 2.0, runs * 3.0, runs * 4.0)


class Profiling(Fake):
    """Knows its layers."""

    started = 0

    def start_profile(self) -> None:
        self.started = len(self.given)

    def profile(self) -> list[LayerTime]:
        return [LayerTime("l", "Gemm", len(self.given) - self.started, 0.5)]


def runs_of(engine: Fake, folder: Path) -> Runs:
    runs = Runs(engine, engine.signature, 1)
    write_inputs(folder / "inputs.npz", [X, WORDS])
    runs.take(str(folder / "inputs.npz"))
    return runs


def test_inputs_arrive_as_they_were_and_outputs_have_their_memory(tmp_path: Path) -> None:
    engine = Fake()
    timed = runs_of(engine, tmp_path).time(Time(seconds=0, most_runs=5, latencies=str(tmp_path / "l.npy")))
    assert (timed.runs, timed.stages) == (5, None)
    assert np.load(tmp_path / "l.npy").shape == (5,)
    assert [into for _, into in engine.given] == [False, *[True] * 5]
    for (x, words), _ in engine.given:
        assert x is not None
        assert words is not None
        assert (x.tolist(), words.tolist()) == (X.tolist(), WORDS.tolist())


def test_it_runs_as_long_and_as_often_as_asked(tmp_path: Path) -> None:
    runs = runs_of(Fake(), tmp_path)
    assert runs.time(Time(seconds=1e-9, least_runs=7)).runs == 7
    assert runs.time(Time(seconds=1e-9)).runs == 1
    assert runs.time(Time(seconds=100, most_runs=3)).runs == 3
    assert runs.time(Time(seconds=0.01)).seconds >= 0.01


def test_stages_are_those_of_a_mean_run(tmp_path: Path) -> None:
    timed = runs_of(Timed(), tmp_path).time(Time(seconds=0, most_runs=3))
    assert timed.stages == Stages(3.0, 6.0, 9.0, 12.0)


def test_layers_are_those_of_the_runs_that_were_asked_for(tmp_path: Path) -> None:
    runs = runs_of(Profiling(), tmp_path)
    asked = Profile(seconds=100, most_runs=4)
    assert runs.profile(asked) == Profiled(layers=[Layer("l", "Gemm", 4, 0.5)], runs=4)
    with pytest.raises(EngineError, match="engine fake does not tell the time of its layers"):
        runs_of(Fake(), tmp_path).profile(asked)


def test_outputs_are_written_so_that_they_can_be_compared(tmp_path: Path) -> None:
    runs = runs_of(Fake(Signature(SIGNATURE.inputs, OUTPUTS, batches=True)), tmp_path)
    runs.answer(str(tmp_path / "outputs.npz"))
    with np.load(tmp_path / "outputs.npz") as file:
        assert file["0"].tolist() == X.tolist()
        assert file["1"].tolist() == [1.5, -2.0]
        # With their lengths, as a text may end in zeros.
        assert file["2"].tolist() == [b"", b"\2\0\0\0a"]
