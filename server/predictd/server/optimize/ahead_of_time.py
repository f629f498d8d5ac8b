"""Graph optimization ahead of time: what ONNX Runtime would do at each load, done once and written down.

The weights are written in the order in which the kernels read them, beside the graph, where all workers map them. The
result fits this kind of CPU and this version of ONNX Runtime.
"""

from __future__ import annotations

import platform
from pathlib import Path

import onnxruntime

from predictd.engines.api import EngineOptions, ModelLoadError
from predictd.engines.hardware import cpu_fingerprint
from predictd.engines.onnxruntime.prepacked import write_prepacked
from predictd.server.optimize.errors import OptimizeError
from predictd.server.optimize.onnx_file import data_file

# Smaller ones are no worse off in the graph.
_EXTERNAL_BYTES_MIN = 16 * 2**10


def optimize_ahead(source: Path, result: Path) -> None:
    """Write the optimized graph of a model.

    Raises:
        OptimizeError: The model cannot be loaded.
    """
    try:
        write_prepacked(
            source, result, data_file(result).name, EngineOptions(), external_bytes_min=_EXTERNAL_BYTES_MIN
        )
    except ModelLoadError as error:
        raise OptimizeError(f"cannot be optimized ahead of time: {error}") from error


def where_it_fits() -> str:
    """The only place where such a result is sure to be of use, in words."""
    version = onnxruntime.__version__
    return f"ONNX Runtime {version} on a CPU like this one ({platform.machine()}, {cpu_fingerprint()})"
