"""What a configuration says of tensors, against what the engine found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from predictd.engines.api import Array, DType, Engine, EngineError, ModelLoadError, Signature, TensorSpec
from predictd.server.config.labels import read_labels
from predictd.server.config.model_config import TensorConfig
from predictd.server.worker.declared import as_declared, declared_specs, label_digests
from tests.fixtures.frontend import config
from tests.unit.worker.lanes import FakeEngine, double

ORIGINS = {"inputs": "/m/config.pbtxt:3", "outputs": "/m/config.pbtxt:5"}


def engine(
    shape: tuple[int, ...] = (-1, 6), dtype: DType = DType.FP32, *, batches: bool = True
) -> FakeEngine:
    signature = Signature((TensorSpec("x", dtype, shape),), (TensorSpec("y", dtype, shape),), batches)
    return FakeEngine(signature, double, uses_out=True)


def declared(
    found: FakeEngine, *, x: TensorConfig | None = None, y: TensorConfig | None = None
) -> tuple[Engine, Signature]:
    return as_declared(found, config(inputs=(x,) if x else (), outputs=(y,) if y else (), origins=ORIGINS))


def test_without_a_word_the_engine_and_its_signature_are_served_as_they_are() -> None:
    found = engine()
    served, signature = declared(found)
    assert served is found
    assert signature == found.signature


def test_what_agrees_costs_nothing_and_each_side_tells_what_the_other_leaves_open() -> None:
    found = engine((-1, -1, 4))
    served, signature = declared(found, x=TensorConfig(name="x", dtype="FP32", shape=(-1, 7, -1)))
    assert served is found
    assert signature.inputs[0].shape == (-1, 7, 4)
    assert signature.batches


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (
            TensorConfig(name="z"),
            "/m/config.pbtxt:3: input 'z': the model has no such input; it has 'x'",
        ),
        (
            TensorConfig(name="x", dtype="INT8"),
            "/m/config.pbtxt:3: input 'x': data_type is INT8, but the model has FP32",
        ),
        (
            TensorConfig(name="x", shape=(-1, 5)),
            "/m/config.pbtxt:3: input 'x': with its dims the shape is [-1, 5], but the model has [-1, 6]",
        ),
        (
            TensorConfig(name="x", shape=(-1, 6, 1)),
            "/m/config.pbtxt:3: input 'x': with its dims the shape is [-1, 6, 1], but the model has [-1, 6]",
        ),
        (
            TensorConfig(name="x", shape=(-1, 6), model_shape=(-1, 2, 3)),
            "/m/config.pbtxt:3: input 'x': with its reshape the shape is [-1, 2, 3], but the model has [-1, 6]",
        ),
    ],
)
def test_a_contradiction_names_the_file_and_the_field(x: TensorConfig, reason: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        declared(engine(), x=x)
    assert str(caught.value) == reason


def test_a_wrong_output_is_named_with_the_line_of_outputs() -> None:
    with pytest.raises(ModelLoadError, match=r"^/m/config.pbtxt:5: output 'y': data_type is BYTES"):
        declared(engine(), y=TensorConfig(name="y", dtype="BYTES"))


def test_a_first_dimension_that_is_fixed_by_the_configuration_is_no_batch() -> None:
    _, signature = declared(engine(), x=TensorConfig(name="x", shape=(1, 6)))
    assert not signature.batches
    _, signature = declared(engine(), x=TensorConfig(name="x", shape=(6,), model_shape=(1, 6)))
    assert (signature.inputs[0].shape, signature.batches) == ((6,), False)


def test_reshaped_tensors_are_views_of_the_same_bytes() -> None:
    given: list[Array] = []

    def compute(inputs: Sequence[Array | None]) -> list[Array]:
        given.extend(one for one in inputs if one is not None)
        return double(inputs)

    found = FakeEngine(engine((-1, 2, -1)).signature, compute, uses_out=True)
    client, model = (-1, -1, 1, 2), (-1, 2, -1)
    served, signature = as_declared(
        found,
        config(
            inputs=(TensorConfig(name="x", shape=client, model_shape=model),),
            outputs=(TensorConfig(name="y", shape=client, model_shape=model),),
        ),
    )
    assert (signature.inputs[0].shape, signature.outputs[0].shape) == (client, client)
    assert signature.batches
    array = np.arange(24, dtype=np.float32).reshape(3, 4, 1, 2)
    out = np.zeros_like(array)
    (result,) = served.run([array], [out])
    assert result is out
    assert given[0].shape == (3, 2, 4)
    assert np.shares_memory(given[0], array)
    np.testing.assert_array_equal(out, 2 * array)
    (allocated,) = served.run([array])
    assert allocated.shape == array.shape
    np.testing.assert_array_equal(allocated, 2 * array)


def test_an_output_that_cannot_be_reshaped_is_an_error_of_the_engine() -> None:
    found = engine((-1, -1))
    served, _ = declared(found, y=TensorConfig(name="y", shape=(-1, 5), model_shape=(-1, 5)))
    with pytest.raises(
        EngineError, match=r"^output 'y' has shape \[2, 4\]; its configuration says \[-1, 5\]$"
    ):
        served.run([np.zeros((2, 4), np.float32)])


def test_engines_get_what_is_said_as_the_model_sees_it() -> None:
    assert declared_specs(
        (
            TensorConfig(name="a", dtype="INT8", shape=(-1, 4), optional=True),
            TensorConfig(name="b", dtype="FP32", shape=(-1, 1), model_shape=(-1,)),
            TensorConfig(name="c", dtype="FP32", shape=(1,), model_shape=()),
            TensorConfig(name="d", dtype="FP32"),
            TensorConfig(name="e", shape=(1,)),
        )
    ) == (
        TensorSpec("a", DType.INT8, (-1, 4), optional=True),
        TensorSpec("b", DType.FP32, (-1,)),
        TensorSpec("c", DType.FP32, ()),
    )


def test_labels_are_read_and_known_by_their_digest(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ndog\n")
    output = TensorConfig(name="y", labels_file=path)
    assert label_digests(config(outputs=(output,))) == {"y": read_labels(path).digest}


def test_labels_that_cannot_be_read_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    said = config(outputs=(TensorConfig(name="y", labels_file=path),), origins=ORIGINS)
    with pytest.raises(ModelLoadError) as caught:
        label_digests(said)
    assert str(caught.value) == (
        f"/m/config.pbtxt:5: labels file of output 'y': {path}: no such file or directory"
    )
    path.write_bytes(b"\xff")
    with pytest.raises(ModelLoadError) as caught:
        label_digests(said)
    assert str(caught.value) == f"{path}: not UTF-8 text: save it as UTF-8"


# Outputs that are served ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("uses_out", [False, True])
def test_outputs_that_the_configuration_leaves_out_are_not_served(uses_out: bool) -> None:
    specs = tuple(TensorSpec(name, DType.FP32, (-1, 2)) for name in "abc")
    given: list[Sequence[Array | None] | None] = []

    class Three:
        name = "three"
        signature = Signature((TensorSpec("x", DType.FP32, (-1, 2)),), specs, batches=True)

        def run(
            self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None
        ) -> list[Array]:
            given.append(out)
            (x,) = inputs
            assert x is not None
            results: list[Array] = [x + at for at in range(3)]
            for at, buffer in enumerate(out or ()):
                if buffer is not None:
                    buffer[...] = results[at]
                    results[at] = buffer
            return results

        def close(self) -> None:
            """Nothing to release."""

    served, signature = as_declared(Three(), config(served_outputs=("c", "a")))
    assert [spec.name for spec in signature.outputs] == ["a", "c"]
    assert served.signature == signature
    x = np.zeros((2, 2), np.float32)
    out = [np.empty_like(x), np.empty_like(x)] if uses_out else None
    results = served.run([x], out)
    assert [result[0, 0] for result in results] == [0, 2]
    if out is None:
        assert given == [None]
    else:
        assert all(result is buffer for result, buffer in zip(results, out, strict=True))
        assert given[0] is not None
        assert given[0][1] is None


def test_a_configuration_that_lists_all_outputs_costs_nothing() -> None:
    found = engine()
    served, signature = as_declared(found, config(served_outputs=("y",)))
    assert served is found
    assert signature == found.signature
