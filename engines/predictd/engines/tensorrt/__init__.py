"""TensorRT (8.6, 10, 11) and TensorRT-RTX on NVIDIA GPUs: plans, `.plan` or `.engine`, and `.onnx` when asked for.

The device is the number of a GPU, such as "0", which is also what it is when nobody says so; of several, such as
"0,1", the instances of a model take turns.

Parameters (`EngineOptions.parameters`), each with its default; any other name or value is refused:

* `bindings`: `tensorrt` or `tensorrt_rtx`; the first of them that is installed.
* `cuda_graphs`: `true` (default) or `false`; record runs of shapes that come again as CUDA graphs. Plans whose output
  shapes depend on the data, that take shapes as inputs, or whose weights stream, run without.
* `parts`: 1 to 8 (default 2): into how many parts a batch with at least 8 MiB of inputs is cut, so that copies and
  computing overlap.

Of an ONNX model the plan is taken from the cache, or built at load by a process of its own. What it is built for:

* `precision`: `fp32` (default), `tf32`, `fp16`, `bf16` or `int8`.
* `min_shapes`, `opt_shapes`, `max_shapes`: such as `x:1x3x224x224,mask:1x128`; of inputs that are not named, the first
  dimension follows the batch sizes of the model.
* `workspace_bytes`, `version_compatible`, `hardware_compatibility`, `sparse`: as those of `predictd build`.

Element types: FP32, FP16, BF16, INT8, INT32, INT64, BOOL, UINT8. Refused at load: others, and tensors that are not
linear in memory. Threads obey nobody: TensorRT makes none to run a plan.

Importing this package imports no TensorRT, and nothing of TensorRT's runtime is touched before the NVIDIA driver has
answered.
"""

from predictd.engines.tensorrt.engine import TensorRtEngine, load

__all__ = ["TensorRtEngine", "load"]
