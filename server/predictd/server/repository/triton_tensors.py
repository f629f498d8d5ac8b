"""Inputs, outputs and warm-up requests of a `config.pbtxt`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from predictd.server.config.file_names import check_file_name
from predictd.server.config.model_config import TensorConfig, WarmupSample, WarmupTensor
from predictd.server.repository.protoschema import Notes, Record

_MOST_RUNS = 10_000


def dtype_of(record: Record) -> str | None:
    """The name of predictd's DType for a `data_type`, None where it says nothing."""
    name = record.text("data_type").removeprefix("TYPE_")
    return {"": None, "INVALID": None, "STRING": "BYTES"}.get(name, name)


def file_name(record: Record, name: str, notes: Notes) -> str | None:
    """The name of a file inside a folder, None if there is none or it leads out of the folder."""
    text = record.text(name)
    if not text:
        return None
    try:
        check_file_name(text)
    except ValueError as error:
        notes.error(record.line_of(name), name, f"{name} {error}")
        return None
    return text


@dataclass(frozen=True, slots=True)
class TensorReader:
    """Reads tensors.

    Attributes:
        folder: The model's.
        batching: The model batches, so that dims leave the batch dimension out.
        tensorrt: The engine is TensorRT.
        notes: For what is wrong.
    """

    folder: Path
    batching: bool
    tensorrt: bool
    notes: Notes

    def tensors(
        self, records: tuple[Record, ...], kind: Literal["input", "output"]
    ) -> tuple[TensorConfig, ...]:
        """All inputs, or all outputs."""
        tensors: dict[str, TensorConfig] = {}
        for record in records:
            name = record.text("name")
            if not name:
                self.notes.error(record.line, f"{kind}.name", f"an {kind} without a name", "add name")
            elif name in tensors:
                self.notes.error(record.line, f"{kind}.name", f"{kind} {name!r} is there twice", "remove one")
            else:
                tensors[name] = self._tensor(record, name, kind)
        return tuple(tensors.values())

    def _tensor(self, record: Record, name: str, kind: str) -> TensorConfig:
        self._refuse(record, name, kind)
        labels = file_name(record, "label_filename", self.notes)
        dims = self._dims(record, name, kind)
        reshape = self._reshape(record, name, kind, dims)
        return TensorConfig(
            name=name,
            dtype=dtype_of(record),
            shape=None if dims is None else self._shape(dims),
            model_shape=None if reshape is None else self._shape(reshape),
            optional=record.flag("optional"),
            labels_file=None if labels is None else self.folder / labels,
        )

    def _shape(self, dims: tuple[int, ...]) -> tuple[int, ...]:
        return (-1, *dims) if self.batching else dims

    def _refuse(self, record: Record, name: str, kind: str) -> None:
        if record.flag("allow_ragged_batch"):
            line = record.line_of("allow_ragged_batch")
            message = f"{kind} {name!r}: predictd does not make ragged batches"
            self.notes.error(line, f"{kind}.allow_ragged_batch", message, "pad the input, or remove it")
        if record.flag("is_non_linear_format_io"):
            line = record.line_of("is_non_linear_format_io")
            message = f"{kind} {name!r}: predictd has linear tensors only"
            self.notes.error(
                line, f"{kind}.is_non_linear_format_io", message, "build the engine with linear I/O"
            )
        if record.flag("is_shape_tensor") and not self.tensorrt:
            line = record.line_of("is_shape_tensor")
            message = f"{kind} {name!r}: only TensorRT has shape tensors"
            self.notes.error(line, f"{kind}.is_shape_tensor", message, "remove it")

    def _dims(self, record: Record, name: str, kind: str) -> tuple[int, ...] | None:
        if "dims" not in record:
            return None
        items, dims = record.items("dims"), record.wholes("dims")
        for item, size in zip(items, dims, strict=True):
            if size < 1 and size != -1:
                message = f"{kind} {name!r}: {size} is no dimension"
                self.notes.error(
                    item.line, f"{kind}.dims", message, "write a number from 1, or -1 if it varies"
                )
        if not dims:
            message = f"{kind} {name!r} has no dims"
            remedy = "write dims: [ 1 ] with reshape: { shape: [ ] }"
            self.notes.error(record.line_of("dims"), f"{kind}.dims", message, remedy)
        return dims

    def _reshape(
        self, record: Record, name: str, kind: str, dims: tuple[int, ...] | None
    ) -> tuple[int, ...] | None:
        reshape = record.record("reshape")
        if reshape is None:
            return None
        shape = reshape.wholes("shape")
        wrong = self._wrong_reshape(dims, shape)
        if wrong:
            line = record.line_of("reshape")
            remedy = "give both the same number of elements, and the same -1 in the same order"
            self.notes.error(line, f"{kind}.reshape", f"{kind} {name!r}: {wrong}", remedy)
            return None
        return shape

    def _wrong_reshape(self, dims: tuple[int, ...] | None, shape: tuple[int, ...]) -> str:
        if dims is None:
            return "a reshape without dims"
        if any(size < 1 and size != -1 for size in shape):
            return f"reshape to {list(shape)} has a size that is neither -1 nor from 1"
        if not shape and not self.batching:
            return "only a model with max_batch_size from 1 can be reshaped to no dimension"
        if _products(dims) != _products(shape):
            return f"{list(dims)} cannot be reshaped to {list(shape)}"
        return ""


def _products(dims: tuple[int, ...]) -> list[int]:
    """The numbers of elements before, between and after the varying dimensions."""
    ends = [*(at for at, size in enumerate(dims) if size == -1), len(dims)]
    starts = [0, *(end + 1 for end in ends)]
    return [math.prod(dims[start:end]) for start, end in zip(starts, ends, strict=False)]


@dataclass(frozen=True, slots=True)
class WarmupReader:
    """Reads warm-up requests.

    Attributes:
        folder: The model's.
        max_batch_size: As the file says it; 0 for a model that does not batch.
        notes: For what is wrong.
    """

    folder: Path
    max_batch_size: int
    notes: Notes

    def samples(self, records: tuple[Record, ...]) -> tuple[WarmupSample, ...]:
        """All requests, in order."""
        return tuple(self._sample(record, at) for at, record in enumerate(records, 1))

    def _sample(self, record: Record, at: int) -> WarmupSample:
        name = record.text("name") or f"number {at}"
        rows, runs = record.whole("batch_size"), max(1, record.whole("count"))
        most = max(1, self.max_batch_size)
        if not 1 <= rows <= most:
            message = f"warm-up {name!r}: batch_size must be from 1 to {most}, as max_batch_size is"
            self.notes.error(record.line_of("batch_size"), "model_warmup.batch_size", message)
        if runs > _MOST_RUNS:
            message = f"warm-up {name!r}: {runs} runs are more than {_MOST_RUNS}"
            self.notes.error(record.line_of("count"), "model_warmup.count", message)
        if not record.records("inputs"):
            message = f"warm-up {name!r} has no inputs"
            self.notes.error(
                record.line, "model_warmup.inputs", message, "add one for each input of the model"
            )
        inputs = tuple(
            self._input(value, entry.text("key"), max(1, rows), name)
            for entry in record.records("inputs")
            if (value := entry.record("value")) is not None
        )
        return WarmupSample(name=name, runs=runs, inputs=inputs)

    def _input(self, record: Record, name: str, rows: int, sample: str) -> WarmupTensor:
        dtype, dims = dtype_of(record), record.wholes("dims")
        place = f"warm-up {sample!r}, input {name!r}"
        if dtype is None:
            self.notes.error(
                record.line, "model_warmup.inputs.data_type", f"{place} has no data_type", "add it"
            )
        if any(size < 1 for size in dims):
            line = record.line_of("dims")
            message = f"{place}: {list(dims)} is no shape"
            self.notes.error(line, "model_warmup.inputs.dims", message, "write numbers from 1")
        file = file_name(record, "input_data_file", self.notes)
        data: Literal["zeros", "random", "file"] = (
            "file" if file else "random" if "random_data" in record else "zeros"
        )
        if data == "zeros" and "zero_data" not in record:
            remedy = "add zero_data: true, random_data: true or input_data_file"
            self.notes.error(record.line, "model_warmup.inputs", f"{place} has no data", remedy)
        batching = self.max_batch_size > 0
        return WarmupTensor(
            name=name,
            dtype=dtype or "",
            shape=(rows, *dims) if batching else dims,
            rows=rows if batching else None,
            data=data,
            file=self.folder / "warmup" / file if file else None,
        )
