"""Which models can be compared at all."""

from __future__ import annotations

import pytest

from predictd.engines.api import DType, Signature, TensorSpec
from predictd.server.measure.engine_process import MeasureError
from predictd.server.optimize.pair import check_alike


def signature(*inputs: TensorSpec, outputs: tuple[str, ...] = ("y",)) -> Signature:
    return Signature(inputs, tuple(TensorSpec(name, DType.FP32, (-1, 2)) for name in outputs), batches=True)


X = TensorSpec("x", DType.FP32, (-1, 4))
MASK = TensorSpec("mask", DType.INT64, (-1, 4))


@pytest.mark.parametrize(
    "candidate",
    [
        signature(X),
        signature(TensorSpec("x", DType.FP16, (1, 4))),
        signature(TensorSpec("x", DType.BF16, (-1, -1))),
        signature(X, TensorSpec("bias", DType.FP32, (4,), optional=True)),
    ],
)
def test_what_the_same_inputs_suit_is_compared(candidate: Signature) -> None:
    check_alike(signature(X), candidate)
    check_alike(candidate, signature(X))


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (signature(TensorSpec("img", DType.FP32, (-1, 4))), "has the inputs 'x', the candidate 'img'"),
        (signature(X, MASK), "has the inputs 'x', the candidate 'x', 'mask'"),
        (signature(outputs=("y",)), "has the inputs 'x', the candidate none"),
        (
            signature(TensorSpec("x", DType.FP32, (-1, 5))),
            "input 'x' is FP32[-1, 4] for the original, FP32[-1, 5] for the candidate",
        ),
        (
            signature(TensorSpec("x", DType.FP32, (4,))),
            "input 'x' is FP32[-1, 4] for the original, FP32[4] for the candidate",
        ),
        (
            signature(TensorSpec("x", DType.INT8, (-1, 4))),
            "input 'x' is FP32[-1, 4] for the original, INT8[-1, 4] for the candidate",
        ),
        (signature(X, outputs=("z",)), "has the outputs 'y', the candidate 'z'"),
    ],
)
def test_what_differs_is_named(candidate: Signature, reason: str) -> None:
    with pytest.raises(MeasureError, match=r"the models cannot be compared: ") as caught:
        check_alike(signature(X), candidate)
    assert reason in str(caught.value)
