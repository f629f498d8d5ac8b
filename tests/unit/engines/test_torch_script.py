"""TorchScript models, run by PyTorch itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictd.engines.api import (
    Array,
    DType,
    Engine,
    EngineError,
    EngineOptions,
    InvalidInputError,
    ModelLoadError,
    TensorSpec,
)
from tests.fixtures.torch_or_skip import need_torch
from tests.unit.engines.shared import refusal, sample

need_torch()
torch: Any = pytest.importorskip("torch")
from predictd.engines.torch import tensors  # noqa: E402 - they import torch
from predictd.engines.torch.engine import load  # noqa: E402
from tests.fixtures import torch_models  # noqa: E402

SERVED = tuple(tensors.TORCH_DTYPES)
REFUSED = tuple(dtype for dtype in DType if dtype not in SERVED)


def spec(name: str, dtype: DType = DType.FP32, shape: Sequence[int] = (-1, 4), **more: bool) -> TensorSpec:
    return TensorSpec(name, dtype, tuple(shape), **more)


X, Y = (spec("x"),), (spec("y"),)


def engine_of(
    folder: Path,
    module: Any,
    inputs: tuple[TensorSpec, ...] = X,
    outputs: tuple[TensorSpec, ...] = Y,
    *,
    threads: int = 1,
    **parameters: str,
) -> Engine:
    path = torch_models.script(folder / "m.pt", module)
    options = EngineOptions(threads=threads, inputs=inputs, outputs=outputs, parameters=parameters)
    return load(path, options)


def reason(folder: Path, module: Any, **options: Any) -> str:
    """Why a model is refused."""
    return refusal(load, torch_models.script(folder / "m.pt", module), EngineOptions(**options))


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("dtype", SERVED, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (0, 4)], ids=str)
def test_every_dtype_comes_back_from_read_only_memory(
    dtype: DType, shape: tuple[int, ...], tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, torch_models.Identity(), (spec("x", dtype),), (spec("y", dtype),))
    sent = sample(dtype, shape)
    sent.flags.writeable = False
    (y,) = engine.run([sent])
    np.testing.assert_array_equal(y, sent, strict=True)
    assert not np.shares_memory(y, sent)


def test_scalars_are_served(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, torch_models.Double(), (spec("x", shape=()),), (spec("y", shape=()),))
    (y,) = engine.run([np.array(2, np.float32)])
    np.testing.assert_array_equal(y, np.array(4, np.float32), strict=True)
    assert not engine.signature.batches


def test_bf16_means_bfloat16(tmp_path: Path) -> None:
    engine = engine_of(
        tmp_path, torch_models.Double(), (spec("x", DType.BF16, (-1,)),), (spec("y", DType.BF16, (-1,)),)
    )
    (y,) = engine.run([np.array([0x3F80, 0xC000], np.uint16)])
    np.testing.assert_array_equal(y, np.array([0x4000, 0xC080], np.uint16), strict=True)


@pytest.mark.parametrize("dtype", REFUSED, ids=lambda dtype: dtype.name)
def test_what_pytorch_has_no_operators_for_is_refused(dtype: DType, tmp_path: Path) -> None:
    assert reason(tmp_path, torch_models.Identity(), inputs=(spec("x", dtype),), outputs=Y) == (
        f"input 'x' is {dtype.name}, which engine torch does not serve"
    )


def test_a_model_that_writes_over_its_inputs_gets_copies(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, torch_models.InPlace())
    sent = ones(2, 4)
    (y,) = engine.run([sent])
    np.testing.assert_array_equal(y, ones(2, 4) + 1)
    np.testing.assert_array_equal(sent, ones(2, 4))


def test_an_answer_outlives_the_next_run_and_the_engine(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, torch_models.Double())
    (first,) = engine.run([ones(2, 4)])
    engine.run([ones(2, 4) * 7])
    engine.close()
    np.testing.assert_array_equal(first, ones(2, 4) * 2)


BOTH = torch_models.SumAndDifference()
WIDE = (spec("x", shape=(-1, 2)),)


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (("left", "right"), ("sum", "difference"), (5, 1)),
        (("right", "left"), ("sum", "difference"), (5, -1)),
        (("a", "b"), ("sum", "difference"), (5, 1)),
        (("INPUT__1", "INPUT__0"), ("OUTPUT__1", "OUTPUT__0"), (-1, 5)),
        (("INPUT__0", "INPUT__1"), ("OUTPUT__1",), (1,)),
    ],
)
def test_names_are_forwards_or_numbered_or_in_order(
    inputs: Sequence[str], outputs: Sequence[str], expected: Sequence[float], tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, BOTH, tuple(map(spec, inputs)), tuple(map(spec, outputs)))
    results = engine.run([ones(1, 4) * 3, ones(1, 4) * 2])
    assert tuple(float(result[0, 0]) for result in results) == expected
    assert [tensor.name for tensor in engine.signature.outputs] == list(outputs)


def test_a_dictionary_is_read_by_its_keys(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, torch_models.Named(), X, (spec("once"), spec("twice")))
    assert [float(y[0, 0]) for y in engine.run([ones(1, 4)])] == [1, 2]
    engine = engine_of(tmp_path, torch_models.Named(), X, (spec("thrice"),))
    with pytest.raises(EngineError, match=r"^forward gives no output 'thrice'; it gives 'twice', 'once'$"):
        engine.run([ones(1, 4)])


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (("a",), "forward gives 2 outputs, 1 are declared"),
        (("O__0", "O__2"), "forward gives 2 outputs, 'O__2' is declared"),
    ],
)
def test_outputs_that_are_not_there_are_named(outputs: Sequence[str], message: str, tmp_path: Path) -> None:
    engine = engine_of(tmp_path, BOTH, (spec("left"), spec("right")), tuple(map(spec, outputs)))
    with pytest.raises(EngineError) as caught:
        engine.run([ones(1, 4), ones(1, 4)])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (spec("y", DType.FP64), "output 'y' is float32, the model's signature says FP64"),
        (spec("y", shape=(-1, 5)), "output 'y' has shape [1, 4], the model's signature says [-1, 5]"),
        (spec("y", shape=(-1,)), "output 'y' has shape [1, 4], the model's signature says [-1]"),
    ],
)
def test_an_output_that_was_declared_wrongly_is_named(
    output: TensorSpec, message: str, tmp_path: Path
) -> None:
    engine = engine_of(tmp_path, torch_models.Double(), X, (output,))
    with pytest.raises(EngineError) as caught:
        engine.run([ones(1, 4)])
    assert (str(caught.value), type(caught.value)) == (message, EngineError)


def test_an_optional_input_may_be_left_out(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, torch_models.MaybeBiased(), (spec("x"), spec("bias", optional=True)))
    assert float(engine.run([ones(1, 4), None])[0][0, 0]) == 1
    assert float(engine.run([ones(1, 4), ones(1, 4)])[0][0, 0]) == 2
    # And one that nobody declares is left out for good.
    assert float(engine_of(tmp_path, torch_models.MaybeBiased()).run([ones(1, 4)])[0][0, 0]) == 1


def test_a_model_that_declares_nothing_is_told_what_to_declare(tmp_path: Path) -> None:
    said = "TorchScript says neither dtypes nor shapes, and"
    advice = 'in the model\'s configuration, such as {}s.{} = {{dtype = "FP32", shape = [-1, 4]}}'
    assert reason(tmp_path, BOTH) == (
        f"{said} forward takes left, right: declare every input {advice.format('input', 'left')}"
    )
    assert reason(tmp_path, BOTH, inputs=(spec("left"),)) == (
        f"{said} forward takes left, right: declare every input {advice.format('input', 'right')}"
    )
    assert reason(tmp_path, torch_models.Double(), inputs=X) == (
        f"{said} none is declared: declare every output {advice.format('output', 'OUTPUT__0')}"
    )


def test_arguments_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    assert reason(tmp_path, torch_models.OfList(), inputs=X, outputs=Y) == (
        "input 'x' is of type List[Tensor]; only tensors are served"
    )
    assert reason(tmp_path, torch_models.Double(), inputs=(spec("x", optional=True),), outputs=Y) == (
        "input 'x' cannot be optional: forward demands a tensor"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"device": "cuda"}, "engine torch runs on the device 'cpu', not on 'cuda'"),
        ({"parameters": {"a": "b"}}, "unknown parameter 'a' of engine torch; known: optimization"),
        (
            {"parameters": {"optimization": "all"}},
            "parameter 'optimization' must be one of freeze, inference, none, not 'all'",
        ),
    ],
)
def test_options_that_cannot_be_kept_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert reason(tmp_path, torch_models.Double(), inputs=X, outputs=Y, **options) == message


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    path = torch_models.script(tmp_path / "m.pt", torch_models.Double())
    torch_models.rewrite(
        path, "code/__torch__/tests/fixtures/torch_models.py", b"class Double(Module):\n  oops\n"
    )
    with pytest.raises(ModelLoadError) as caught:
        load(path, EngineOptions(inputs=X, outputs=Y))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_saved_weights_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(torch_models.convolutions().state_dict(), str(path))
    with pytest.raises(
        ModelLoadError, match="pickled objects, which may run anything when loaded, and no TorchScript"
    ):
        load(path, EngineOptions(inputs=X, outputs=Y))


def test_what_the_model_refuses_is_the_clients_fault_in_one_line(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, torch_models.Picky())
    for sent, message in ((-ones(1, 4), "negative numbers"), (ones(1, 4) * 200, "too large")):
        with pytest.raises(InvalidInputError) as caught:
            engine.run([sent])
        assert str(caught.value) == message
    assert float(engine.run([ones(1, 4)])[0][0, 0]) == 2


def test_contradicting_inputs_are_the_clients_fault(tmp_path: Path) -> None:
    loose = (spec("left", shape=(-1, -1)), spec("right", shape=(-1, -1)))
    engine = engine_of(tmp_path, BOTH, loose, (spec("s", shape=(-1, -1)), spec("d", shape=(-1, -1))))
    with pytest.raises(
        InvalidInputError, match=r"^The size of tensor a \(4\) must match the size of tensor b \(3\)"
    ):
        engine.run([ones(1, 4), ones(1, 3)])


@pytest.mark.parametrize("optimization", ["freeze", "inference", "none"])
def test_every_optimization_gives_the_same_answers(optimization: str, tmp_path: Path) -> None:
    net = torch_models.convolutions()
    image = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    engine = engine_of(
        tmp_path,
        net,
        (spec("INPUT__0", shape=(-1, 3, 32, 32)),),
        (spec("OUTPUT__0", shape=(-1, 10)),),
        optimization=optimization,
    )
    with torch.no_grad():
        expected = np.from_dlpack(
            net(torch.frombuffer(bytearray(image), dtype=torch.float32).reshape(3, 3, 32, 32))
        )
    for _ in range(3):  # PyTorch compiles anew after the first run
        (scores,) = engine.run([image])
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert engine.signature.batches


def test_each_model_runs_with_its_own_number_of_threads(tmp_path: Path) -> None:
    one = engine_of(tmp_path, torch_models.Double(), threads=1)
    two = engine_of(tmp_path, torch_models.Double(), threads=2)
    for engine, threads in ((one, 1), (two, 2), (one, 1)):
        engine.run([ones(1, 4)])
        assert (torch.get_num_threads(), torch.get_num_interop_threads()) == (threads, 1)


def test_python_goes_on_during_a_run(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, torch_models.Slow())
    engine.run([ones(1, 4)])
    turns, stop = 0, threading.Event()
    running = threading.Event()

    def compute() -> None:
        running.set()
        engine.run([ones(1, 4)])
        stop.set()

    thread = threading.Thread(target=compute)
    thread.start()
    running.wait(10)
    while not stop.is_set():
        turns += 1
    thread.join()
    assert turns > 1000
