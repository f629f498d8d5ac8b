"""What is made for TensorRT is built by TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from predictd.server.optimize.target import Target
from predictd.server.optimize.wish import Precision
from tests.fixtures.nets import NETS, Net, transform

trt: Any = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed", exc_type=ImportError
)


def plan_bytes(path: Path, net: Net) -> int:
    """The size of the plan of a model."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [parser.get_error(number).desc() for number in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    for name, array in net.samples[0].items():
        profile.set_shape(name, (1, *array.shape[1:]), array.shape, (8, *array.shape[1:]))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    size: int = plan.nbytes
    return size


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("precision", "prune"), [(Precision.INT8, True), (Precision.FP16, False), (Precision.BF16, False)]
)
def test_a_plan_is_built(name: str, precision: Precision, prune: bool, tmp_path: Path) -> None:
    net = NETS[name](tmp_path)
    made = transform(net, tmp_path / "work", target=Target.TENSORRT, precision=precision, prune=prune)
    assert plan_bytes(made.path, net) > 10_000
