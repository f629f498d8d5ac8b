"""PyTorch on the CPU: TorchScript (`.pt`) and `torch.export` (`.pt2`) archives.

Which of the two a file is, its content decides. TorchScript says neither dtypes nor shapes, so they come from the
model's configuration (`EngineOptions.inputs` and `outputs`); an exported program says them itself.

Parameters (`EngineOptions.parameters`), each with its default; any other name or value is refused:

* `optimization`, of TorchScript only: `freeze` (default) folds weights and constants into the graph, `inference`
  also rewrites it for oneDNN, `none` runs it as it was saved.

Nothing in a file is unpickled beyond tensors, and no native code is loaded from it. Not served, refused at load:
pickled modules and weights, packages of AOTInductor, arguments that are not tensors, text, and the element types
that PyTorch's operators lack (UINT16, UINT32, UINT64).

Threads come from an OpenMP runtime: it keeps a pool for each thread that computes, and takes how its threads wait
from the environment at its first use. `EngineOptions.spin` has no say in it.
"""
