"""FP16, BF16, graphs optimized ahead of time, external data."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from predictd.server.optimize import onnx_file
from predictd.server.optimize.errors import OptimizeError
from predictd.server.optimize.onnx_file import data_file, place, read_model, refuse_existing
from predictd.server.optimize.target import Target
from predictd.server.optimize.wish import Precision
from tests.fixtures.external import external
from tests.fixtures.models import add_sub, mlp
from tests.fixtures.nets import NETS, Net, conv_net, cosine, mlp_net, outputs, signature, transform


def types(path: Path) -> set[int]:
    """Of the large weights."""
    return {each.data_type for each in onnx.load(path).graph.initializer if np.prod(each.dims) > 64}


@pytest.mark.parametrize("net", NETS)
def test_fp16_halves_the_weights_and_keeps_inputs_and_outputs(net: str, tmp_path: Path) -> None:
    model = NETS[net](tmp_path)
    made = transform(model, tmp_path / "work", precision=Precision.FP16)
    assert types(made.path) == {TensorProto.FLOAT16}
    assert signature(made.path) == signature(model.path)
    assert cosine(outputs(model.path, model.samples), outputs(made.path, model.samples)) >= 0.99999
    assert any("no faster" in note for note in made.notes)
    assert made.path.stat().st_size < model.path.stat().st_size * 0.6


def test_fp16_says_what_it_cannot_hold(tmp_path: Path) -> None:
    net = mlp_net(tmp_path)
    model = onnx.load(net.path)
    weight = model.graph.initializer[0]
    array = numpy_helper.to_array(weight).copy()
    array[0, 0] = 1e6
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, net.path)
    made = transform(net, tmp_path / "work", precision=Precision.FP16, target=Target.TENSORRT)
    assert any("too large for FP16" in note for note in made.notes)
    assert not any("no faster" in note for note in made.notes)


@pytest.mark.parametrize("net", NETS)
def test_bf16_is_a_valid_model_whose_emulation_computes_nearly_the_same(net: str, tmp_path: Path) -> None:
    model = NETS[net](tmp_path)
    made = transform(model, tmp_path / "work", precision=Precision.BF16, target=Target.TENSORRT)
    onnx.checker.check_model(onnx.load(made.path), full_check=True)
    assert TensorProto.BFLOAT16 in types(made.path)
    assert signature(made.for_cpu) == signature(model.path)
    similar = cosine(outputs(model.path, model.samples), outputs(made.for_cpu, model.samples))
    assert 0.999 <= similar < 0.9999999, "rounded, but not by much"


def test_bf16_leaves_excluded_nodes_in_fp32(tmp_path: Path) -> None:
    made = transform(
        conv_net(tmp_path),
        tmp_path / "work",
        precision=Precision.BF16,
        target=Target.TENSORRT,
        exclude=frozenset({"conv1_1"}),
    )
    kept = {each.name: each.data_type for each in onnx.load(made.path).graph.initializer}
    assert kept["conv1_1_w"] == TensorProto.FLOAT
    assert kept["conv1_0_w_as_bf16"] == TensorProto.BFLOAT16


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_a_model_without_floating_point_weights_is_refused(precision: Precision, tmp_path: Path) -> None:
    net = Net(add_sub(tmp_path / "m.onnx"), [])
    with pytest.raises(OptimizeError, match="nothing in the model can be converted to"):
        transform(net, tmp_path / "work", precision=precision, target=Target.TENSORRT)


@pytest.mark.parametrize("net", NETS)
def test_what_is_optimized_ahead_of_time_computes_the_very_same(net: str, tmp_path: Path) -> None:
    model = NETS[net](tmp_path)
    made = transform(model, tmp_path / "work", ahead_of_time=True)
    for one, other in zip(outputs(model.path, model.samples), outputs(made.path, model.samples), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(note.startswith("the graph fits ONNX Runtime ") for note in made.notes)


def test_ahead_of_time_weights_lie_beside_the_graph(tmp_path: Path) -> None:
    net = mlp_net(tmp_path)
    made = transform(net, tmp_path / "work", ahead_of_time=True, precision=Precision.INT8)
    assert cosine(outputs(net.path, net.samples), outputs(made.path, net.samples)) >= 0.999
    plain = transform(net, tmp_path / "plain", ahead_of_time=True)
    assert data_file(plain.path).stat().st_size > net.path.stat().st_size


def test_pruning_and_quantization_go_together(tmp_path: Path) -> None:
    net = mlp_net(tmp_path)
    made = transform(net, tmp_path / "work", precision=Precision.INT8, prune=True, target=Target.TENSORRT)
    weights = [
        numpy_helper.to_array(each)
        for each in onnx.load(made.path).graph.initializer
        if each.data_type == TensorProto.INT8 and len(each.dims) == 2
    ]
    assert len(weights) == 3
    for weight in weights:
        assert (np.count_nonzero(weight.T.reshape(-1, 4), axis=1) <= 2).all()
    assert made.notes[0] == "pruned 3 of 3 weights: of 4 values in a row 2 are 0"
    assert "needs fine-tuning" in made.notes[1]


@pytest.mark.parametrize(("asked", "kept"), [(None, True), (True, True), (False, False)])
def test_external_data_stays_external_unless_asked(asked: bool | None, kept: bool, tmp_path: Path) -> None:
    net = mlp_net(tmp_path)
    source = tmp_path / "external.onnx"
    onnx.save(onnx.load(net.path), source, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = (source.read_bytes(), (tmp_path / "w.bin").read_bytes())
    made = transform(
        Net(source, net.samples), tmp_path / "work", precision=Precision.FP16, external_data=asked
    )
    assert data_file(made.path).exists() is kept
    assert cosine(outputs(net.path, net.samples), outputs(made.path, net.samples)) >= 0.9999
    assert (source.read_bytes(), (tmp_path / "w.bin").read_bytes()) == before


@pytest.mark.parametrize("precision", [None, *Precision])
def test_a_model_that_no_message_holds_has_its_weights_outside_all_the_way(
    precision: Precision | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "INSIDE_BYTES_MAX", 2**13)
    net = mlp_net(tmp_path)
    made = transform(
        net, tmp_path / "work", precision=precision, prune=precision is None, target=Target.TENSORRT
    )
    assert data_file(made.path).exists()
    reached = cosine(outputs(net.path, net.samples), outputs(made.for_cpu, net.samples))
    assert reached >= (0.8 if precision is None else 0.999)


def test_a_file_that_is_no_model_and_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\xff\xff not a model")
    with pytest.raises(OptimizeError, match=r"m\.onnx: not an ONNX model: "):
        read_model(path)
    external(path, 2.0, "gone.bin", write=False)
    with pytest.raises(OptimizeError, match=r"gone\.bin"):
        read_model(path)


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    model = mlp_net(tmp_path).path
    hard, soft, dangling = (tmp_path / f"{name}.onnx" for name in ("hard", "soft", "dangling"))
    hard.hardlink_to(model)
    soft.symlink_to(model)
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (model, hard, soft, dangling, tmp_path / "." / "mlp.onnx"):
        with pytest.raises(OptimizeError, match="is there already"):
            refuse_existing(path)
    (tmp_path / "new.onnx.data").touch()
    with pytest.raises(OptimizeError, match=r"new\.onnx\.data: is there already"):
        refuse_existing(tmp_path / "new.onnx")
    with pytest.raises(OptimizeError, match="no such folder"):
        refuse_existing(tmp_path / "none/new.onnx")


def test_a_file_system_without_links_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    made = tmp_path / "made"
    made.mkdir()
    for name in ("m.onnx", "m.onnx.data"):
        (made / name).write_text(name)
    place(made / "m.onnx", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "m.onnx"
    assert (tmp_path / "m.onnx.data").read_text() == "m.onnx.data"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (lambda path: mlp(path, width=6), "w0: 6 weights in a row are no multiple of 4"),
        (add_sub, "it has no MatMul, Gemm or Conv with weights"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_refused(
    source: Callable[[Path], Path], reason: str, tmp_path: Path
) -> None:
    net = Net(source(tmp_path / "m.onnx"), [])
    with pytest.raises(OptimizeError, match=rf"m\.onnx: nothing can be pruned: {reason}"):
        transform(net, tmp_path / "work", prune=True)
