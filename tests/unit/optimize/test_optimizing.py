"""The whole way: made, compared in real processes, put in place, or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from predictd.server.config.settings import Settings
from predictd.server.optimize import optimizing
from predictd.server.optimize.comparison import Comparison, MeasuredModel, Model, Verdict
from predictd.server.optimize.errors import OptimizeError
from predictd.server.optimize.onnx_file import data_file, place
from predictd.server.optimize.optimizing import optimize
from predictd.server.optimize.target import Target
from predictd.server.optimize.wish import Precision, Wish
from tests.fixtures.nets import conv_net, mlp_net, wish, write_inputs


def carry_out(wanted: Wish) -> Comparison:
    return optimize(wanted, Settings(cache_dir=wanted.output.parent / "cache"), lambda _: None)


def visible(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_a_good_result_is_put_in_place_with_what_it_gained(tmp_path: Path) -> None:
    net = conv_net(tmp_path)
    inputs = write_inputs(tmp_path / "inputs", net)
    before = net.path.read_bytes()
    output = tmp_path / "light.onnx"
    made = carry_out(wish(net.path, output, precision=Precision.INT8, calibration=inputs))
    assert made.verdict.good
    assert made.samples == 3
    assert made.candidate.model == Model(output, "light.onnx")
    assert made.candidate.size_bytes == output.stat().st_size < made.original.size_bytes / 2
    assert [speed.batch_size for speed in made.candidate.speeds] == [1]
    (scores,) = made.accuracy
    assert scores.cosine is not None
    assert scores.cosine >= 0.999
    assert scores.top1_agreement is not None
    assert any("on the inputs of the calibration" in note for note in made.notes)
    assert net.path.read_bytes() == before
    assert visible(tmp_path) == {"conv.onnx", "inputs", "light.onnx", "cache"}


def test_a_result_past_a_threshold_is_kept_if_asked_for(tmp_path: Path) -> None:
    net = mlp_net(tmp_path)
    output = tmp_path / "pruned.onnx"
    made = carry_out(wish(net.path, output, prune=True, keep=True, external_data=True))
    assert not made.verdict.good
    assert any("below 0.999" in reason for reason in made.verdict.reasons)
    assert any("needs fine-tuning" in note for note in made.notes)
    assert any("random numbers say little" in note for note in made.notes)
    assert output.exists()
    assert made.candidate.size_bytes == output.stat().st_size + data_file(output).stat().st_size
    assert data_file(output).stat().st_mode == output.stat().st_mode
    assert not any(name.startswith(".") for name in visible(tmp_path))


def test_bf16_is_compared_by_its_emulation_and_says_so(tmp_path: Path) -> None:
    net = mlp_net(tmp_path)
    output = tmp_path / "bf16.onnx"
    wanted = wish(net.path, output, precision=Precision.BF16, target=Target.TENSORRT)
    made = carry_out(wanted)
    assert made.verdict.good
    assert made.candidate.size_bytes == output.stat().st_size
    assert any("BF16 was emulated" in note for note in made.notes)


def test_tensorrt_s_int8_says_that_its_speed_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = MeasuredModel(Model(tmp_path, "some"), "some", 1, 1, 1.0, ())
    good = Comparison(some, some, 1, (), (), Verdict(good=True))
    monkeypatch.setattr(optimizing, "compare_models", lambda *_, **__: good)
    net = conv_net(tmp_path)
    inputs = write_inputs(tmp_path / "inputs", net)
    wanted = wish(
        net.path,
        tmp_path / "light.onnx",
        precision=Precision.INT8,
        calibration=inputs,
        inputs=inputs,
        target=Target.TENSORRT,
    )
    assert any("not with TensorRT" in note for note in carry_out(wanted).notes)
    on_gpu = dataclasses.replace(wanted, engine="tensorrt", output=tmp_path / "again.onnx")
    assert not any("not with TensorRT" in note for note in carry_out(on_gpu).notes)


def test_the_place_is_looked_at_before_the_work_and_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = mlp_net(tmp_path)
    before = net.path.read_bytes()
    with pytest.raises(OptimizeError, match=r"mlp\.onnx: is there already, and nothing is ever overwritten"):
        carry_out(wish(net.path, net.path, precision=Precision.FP16))
    output = tmp_path / "light.onnx"

    def somebody_else_writes(*_: object, **__: object) -> None:
        output.write_bytes(b"theirs")
        raise AssertionError

    monkeypatch.setattr(optimizing, "compare_models", somebody_else_writes)
    with pytest.raises(AssertionError):
        carry_out(wish(net.path, output, precision=Precision.FP16))
    with pytest.raises(OptimizeError, match=r"light\.onnx: is there already"):
        place(net.path, output)
    assert output.read_bytes() == b"theirs"
    assert net.path.read_bytes() == before


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(OptimizeError, match=r"broken\.onnx: "):
        carry_out(wish(path, tmp_path / "light.onnx", precision=Precision.FP16))
    assert visible(tmp_path) == {"broken.onnx"}
