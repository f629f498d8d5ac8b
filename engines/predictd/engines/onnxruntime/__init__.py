"""ONNX Runtime on the CPU and, where it was built for it (`onnxruntime-gpu`), on a GPU, such as the device "0".

Parameters (`EngineOptions.parameters`), each with its default; any other name or value is refused:

* `graph_optimization_level`: `disabled`, `basic`, `extended` or `all` (default).
* `enable_cpu_mem_arena`: `true` (default) or `false`; false gives memory back after
  a large batch and is slower.
* `share_weights`: `true` (default) or `false`; whether the workers of a model with large weights map one copy of
  them from the cache folder. Not on a GPU.
* `execution_provider`, on a GPU only: `cuda` (default) or `tensorrt`, which builds its engines anew at each load; the
  engine `tensorrt` keeps them. What neither can is run on the CPU.

Not served, refused at load: sequences, maps, optionals, sparse tensors, element types that `DType` lacks,
inputs without a declared shape, and models that combine a STRING input with a BF16 output. Text must be
UTF-8, as ONNX demands.
"""

from predictd.engines.onnxruntime.engine import OnnxRuntimeEngine, load

__all__ = ["OnnxRuntimeEngine", "load"]
