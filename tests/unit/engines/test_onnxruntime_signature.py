from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from predictd.engines.api import DType, EngineOptions, ModelLoadError, TensorSpec
from predictd.engines.onnxruntime import load
from predictd.engines.onnxruntime.signature import describe
from tests.fixtures import models


@dataclass
class FakeNode:
    shape: Sequence[int | str | None]
    name: str = "x"
    type: str = "tensor(float)"


def batches(inputs: Sequence[Sequence[int | str | None]], *outputs: Sequence[int | str | None]) -> bool:
    return describe([FakeNode(shape) for shape in inputs], [], [FakeNode(shape) for shape in outputs]).batches


def test_one_name_in_front_of_everything_is_the_batch() -> None:
    assert batches([("N", 4), ("N",)], ("N", 2), ("N", "seq"))


def test_unnamed_dimensions_are_trusted() -> None:
    assert batches([(None, 4)], (None, 2))
    assert batches([("N", 4), (None, 4)], (None, 2))


def test_dimensions_that_tf2onnx_only_numbered_are_trusted() -> None:
    assert batches([("unk__214", 2048)], ("unk__215", 214))
    assert batches([("unk__1", 4), ("unk__2", 4)], ("unk__3", 4))
    assert not batches([("unk__1", 4), ("N", 4)], ("found", 4))
    assert not batches([("unk__1", 4)], ("unk__1", "unk__1"))


def test_an_output_that_pytorch_named_by_itself_batches_with_the_named_inputs() -> None:
    assert batches([("batch", 4)], ("Addoutput_dim_0", 4))
    assert batches([("batch", 4), ("batch", 8)], ("Gemmlogits_dim_0", 10))
    assert not batches([("batch", 4), ("rows", 8)], ("Gemmlogits_dim_0", 10))


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ([], ("N", 4)),
        ([(1, 4)], ("N", 4)),
        ([("N", 4)], (1, 4)),
        ([("N", 4)], ()),
        ([()], ("N", 4)),
        ([("N", 4), ("M", 4)], ("N", 4)),
        ([("N", 4), ("N", 4), (3,)], ("N", 4)),
        ([("N", 4)], ("found", 4)),
        ([(None, 4)], ("found", 4)),
        ([("N", 4)], ("N", "N")),
        ([("N", "N")], ("N", 4)),
    ],
    ids=str,
)
def test_anything_else_does_not_batch(
    inputs: list[Sequence[int | str | None]], output: Sequence[int | str | None]
) -> None:
    assert not batches(inputs, output)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (models.affine, True),
        (models.mlp, True),
        (models.add_sub, True),
        (models.string_identity, True),
        (models.dynamic_dims, True),
        (models.gather_out_of_bounds, True),
        (models.cast_to_text, True),
        (models.pass_through, True),
        (models.fixed_batch, False),
        (models.nonzero, False),
        (models.scalar, False),
        (models.reduce_all, False),
    ],
)
def test_models_batch_by_their_signature(
    build: Callable[[Path], Path], expected: bool, tmp_path: Path
) -> None:
    assert load(build(tmp_path / "m.onnx"), EngineOptions()).signature.batches is expected


def test_varying_dimensions_are_minus_one(tmp_path: Path) -> None:
    signature = load(models.dynamic_dims(tmp_path / "m.onnx"), EngineOptions()).signature
    assert signature.inputs == (TensorSpec("x", DType.FP32, (-1, -1)),)
    assert signature.outputs == (TensorSpec("y", DType.FP32, (-1,)),)
    assert signature.max_rows is None


def test_a_default_is_an_optional_input_of_a_model_that_does_not_batch(tmp_path: Path) -> None:
    signature = load(models.optional_input(tmp_path / "m.onnx"), EngineOptions()).signature
    assert [(spec.name, spec.optional) for spec in signature.inputs] == [("x", False), ("offset", True)]


def test_a_default_is_hidden_in_a_model_that_batches(tmp_path: Path) -> None:
    model = models.optional_input(tmp_path / "m.onnx", shape=("batch", 4))
    signature = load(model, EngineOptions()).signature
    assert signature.batches
    assert [spec.name for spec in signature.inputs] == ["x"]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (models.sequence_output, "output 'y' is of type seq(tensor(float)), which is not served"),
        (models.optional_output, "output 'y' is of type optional(tensor(float)), which is not served"),
        (models.float8_output, "output 'y' is of type tensor(float8e4m3fn), which is not served"),
        (models.unranked_input, "input 'x' declares no shape, so its dimensions are unknown"),
    ],
)
def test_what_is_not_a_plain_tensor_is_refused(
    build: Callable[[Path], Path], reason: str, tmp_path: Path
) -> None:
    path = build(tmp_path / "m.onnx")
    with pytest.raises(ModelLoadError) as caught:
        load(path, EngineOptions())
    assert str(caught.value) == f"{path}: {reason}"


def test_text_in_with_bf16_out_is_refused() -> None:
    inputs = [FakeNode(("N",), "words", "tensor(string)")]
    with pytest.raises(ModelLoadError, match="input 'words' is a STRING and output 'y' is BF16"):
        describe(inputs, [], [FakeNode(("N",), "y", "tensor(bfloat16)")])


def test_a_default_of_a_type_that_is_not_served_is_left_out() -> None:
    signature = describe([FakeNode((1,))], [FakeNode((1,), "w", "tensor(int4)")], [FakeNode((1,), "y")])
    assert [spec.name for spec in signature.inputs] == ["x"]
