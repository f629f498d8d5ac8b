"""Outputs whose shape depends on the data: TensorRT asks for their memory while it runs."""

from __future__ import annotations

from typing import Any

from predictd.engines.tensorrt.buffers import DeviceBuffer


def make_allocator(trt: Any, cuda: Any) -> Any:
    """An output allocator with a buffer that grows.

    It has `buffer`, `shape`, the last that TensorRT told, and `error`, why there was no memory. TensorRT calls one of
    the two ways to ask, as its version has it.
    """

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc] # of a module that is known at run time only
        def __init__(self) -> None:
            # Not super(): TensorRT's classes demand their own constructor by name.
            trt.IOutputAllocator.__init__(self)
            self.buffer = DeviceBuffer(cuda)
            self.shape: tuple[int, ...] | None = None
            self.error: Exception | None = None

        def begin(self) -> None:
            """Forget the run before."""
            self.shape = None
            self.error = None

        def reallocate_output(
            self, _tensor_name: str, _memory: int, size: int, _alignment: int
        ) -> int | None:
            # CUDA aligns its memory more than TensorRT asks for.
            try:
                self.buffer.ensure(size)
            except cuda.Error as error:
                # An exception cannot pass through TensorRT; whoever ran looks here.
                self.error = error
                return None
            return self.buffer.address

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, _stream: int
        ) -> int | None:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, _tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()
