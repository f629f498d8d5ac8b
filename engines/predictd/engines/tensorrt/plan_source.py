"""Where the engine takes its plan from: a plan's own file, or one that is built from an ONNX model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from predictd.engines.api import EngineOptions
from predictd.engines.tensorrt.bindings import Bindings
from predictd.engines.tensorrt.build_options import options_from_parameters
from predictd.engines.tensorrt.gpu_identity import identify
from predictd.engines.tensorrt.plan_cache import plan_for, plan_wish
from predictd.engines.tensorrt.plan_file import check_plan


@contextlib.contextmanager
def open_plan(path: Path, options: EngineOptions, bindings: Bindings, index: int) -> Iterator[Path]:
    """A plan that ought to run on a GPU, there within the `with`.

    Args:
        path: A plan, or an ONNX model, whose plan is taken from the cache or built now.
        options: Of the load.
        bindings: Of TensorRT.
        index: Of the GPU.

    Raises:
        ModelLoadError: It is a plan for another GPU or version, or cannot be built.
        EngineError: There is no such GPU.
    """
    if path.suffix.lower() != ".onnx":
        check_plan(path, bindings.flavour, bindings.version, lambda: identify(index).compute_capability)
        yield path
        return
    build = options_from_parameters(options.parameters, options.batch_sizes)
    wish = plan_wish(path, build, options.inputs, bindings, index)
    with plan_for(
        wish, bindings, options.cache, lambda progress: options.report(str(progress)), options.cancel
    ) as plan:
        yield plan
