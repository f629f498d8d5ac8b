"""OpenVINO: its own models (`.xml` with `.bin`) and, when asked, ONNX models.

Parameters (`EngineOptions.parameters`), each with its default; any other name or value is refused:

* `precision`: `f32` (default), `bf16` or `f16`: what the model computes in. OpenVINO by itself takes bfloat16
  where the CPU has it, which changes answers. One that the device lacks is refused.

Threads obey `EngineOptions.threads` and run where the process may; for how long they wait for each other within a
run is OpenVINO's own choice.

On a CPU, OpenVINO computes 64-bit and unsigned 32-bit integers as 32-bit ones and float64 as float32, and takes an
index out of range for zeros. Inputs with integers that do not fit are refused, as answers would be wrong without
a word.

Not served, refused at load: strings, element types that `DType` lacks, and inputs of unknown rank. Inputs of an
ONNX model that have a default are constants.
"""

from predictd.engines.openvino.engine import OpenVinoEngine, load

__all__ = ["OpenVinoEngine", "load"]
