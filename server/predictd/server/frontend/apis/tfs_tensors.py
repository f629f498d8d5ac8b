"""TensorFlow's TensorProto, turned into the raw tensors that all else speaks and back.

Protocol buffers hand out the elements of a list one by one, each as a Python object. So floats, doubles and booleans
are taken and given in the wire format of their lists, which is the raw form itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import DType
from predictd.protos.tfs import tensor_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.inference import InputTensor
from predictd.server.frontend.varint import encode_varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from predictd.server.frontend.inference import Buffer, OutputTensor

_RANK_MAX = 254
# A string's length inside tensor_content is a 32-bit number, seven bits a byte.
_LENGTH_BYTES_MAX = 5


@dataclass(frozen=True, slots=True)
class _Form:
    """How elements travel.

    Attributes:
        type: TensorFlow's name for the dtype.
        field: The list that holds them.
        raw: The list's wire format is the raw form.
    """

    type: pb.DataType
    field: str
    raw: bool = False


_FORMS: Mapping[DType, _Form] = {
    DType.BOOL: _Form(pb.DT_BOOL, "bool_val", raw=True),
    DType.UINT8: _Form(pb.DT_UINT8, "int_val"),
    DType.UINT16: _Form(pb.DT_UINT16, "int_val"),
    DType.UINT32: _Form(pb.DT_UINT32, "uint32_val"),
    DType.UINT64: _Form(pb.DT_UINT64, "uint64_val"),
    DType.INT8: _Form(pb.DT_INT8, "int_val"),
    DType.INT16: _Form(pb.DT_INT16, "int_val"),
    DType.INT32: _Form(pb.DT_INT32, "int_val"),
    DType.INT64: _Form(pb.DT_INT64, "int64_val"),
    DType.FP16: _Form(pb.DT_HALF, "half_val"),
    DType.BF16: _Form(pb.DT_BFLOAT16, "half_val"),
    DType.FP32: _Form(pb.DT_FLOAT, "float_val", raw=True),
    DType.FP64: _Form(pb.DT_DOUBLE, "double_val", raw=True),
    DType.BYTES: _Form(pb.DT_STRING, "string_val"),
}
# Of the lists that are not in their raw form on the wire.
_CARRIED: Mapping[str, np.dtype[Any]] = {
    "int_val": np.dtype(np.int32),
    "int64_val": np.dtype(np.int64),
    "uint32_val": np.dtype(np.uint32),
    "uint64_val": np.dtype(np.uint64),
    "half_val": np.dtype(np.int32),
}
_DTYPES: Mapping[int, DType] = {form.type: dtype for dtype, form in _FORMS.items()}


# What each list begins with on the wire: its number and that a length follows.
_TAGS: Mapping[str, bytes] = {
    form.field: encode_varint(pb.TensorProto.DESCRIPTOR.fields_by_name[form.field].number << 3 | 2)
    for form in _FORMS.values()
}


def data_type(dtype: DType) -> pb.DataType:
    """TensorFlow's dtype."""
    return _FORMS[dtype].type


def decode_tensor(name: str, tensor: pb.TensorProto, bytes_max: int) -> InputTensor:
    """An input in its raw form.

    Args:
        name: Of the input.
        tensor: As it came.
        bytes_max: How large it may become: a few bytes can name a shape of any size and have it filled.

    Raises:
        InvalidRequestError: It contradicts itself, has a dtype that predictd does not know or is too large.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise _wrong(name, f"dtype {_type_name(tensor.dtype)} is not supported")
    shape = _shape(name, tensor.tensor_shape)
    count = math.prod(shape)
    if count * (dtype.itemsize or 4) > bytes_max:
        raise _too_large(name, shape, bytes_max)
    if not count:
        data: Buffer = b""
    elif dtype is DType.BYTES:
        data = _strings(name, tensor, shape, count, bytes_max)
    elif tensor.tensor_content:
        data = tensor.tensor_content
        if len(data) != count * dtype.itemsize:
            raise _wrong(
                name,
                f"tensor_content has {len(data)} bytes, {dtype.name}{list(shape)} {count * dtype.itemsize}",
            )
    else:
        data = _numbers(name, tensor, dtype, count)
    return InputTensor(name, dtype, shape, data)


def encode_tensor(output: OutputTensor, tensor: pb.TensorProto, *, as_content: bool = False) -> None:
    """Write an output into an empty message.

    Args:
        output: To be written.
        tensor: Where to.
        as_content: In `tensor_content` rather than in the list that belongs to the dtype.
    """
    form = _FORMS[output.dtype]
    tensor.dtype = data_type(output.dtype)
    # A scalar has a shape too: an empty one.
    tensor.tensor_shape.SetInParent()
    for size in output.shape:
        tensor.tensor_shape.dim.add(size=size)
    if output.dtype is DType.BYTES:
        elements = list(string_elements(output.data))
        if as_content:
            lengths = b"".join(encode_varint(len(element)) for element in elements)
            tensor.tensor_content = lengths + b"".join(elements)
        else:
            tensor.string_val.extend(elements)
    elif as_content:
        tensor.tensor_content = bytes(output.data)
    elif output.data:
        _encode_numbers(output, form, tensor)


def join_strings(elements: Iterable[bytes]) -> bytes:
    """The raw form of BYTES elements."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def string_elements(data: Buffer) -> Iterator[bytes]:
    """The elements of BYTES in their raw form."""
    at = 0
    while at < len(data):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        yield bytes(data[start:at])


def _shape(name: str, shape: pb.TensorShapeProto) -> tuple[int, ...]:
    sizes = tuple(dim.size for dim in shape.dim)
    if shape.unknown_rank or len(sizes) > _RANK_MAX or min(sizes, default=0) < 0:
        raise _wrong(
            name, "its shape is unknown" if shape.unknown_rank else f"invalid shape {list(sizes)[:8]}"
        )
    return sizes


def _numbers(name: str, tensor: pb.TensorProto, dtype: DType, count: int) -> Buffer:
    form = _FORMS[dtype]
    values: npt.NDArray[Any]
    listed = getattr(tensor, form.field)
    if not listed:
        _refuse_other_lists(name, tensor, form.field)
        return bytes(count * dtype.itemsize)
    if form.raw:
        values = np.frombuffer(_packed(tensor, form.field), dtype.numpy)
    else:
        # What is too large loses its high bits, as in TensorFlow. Clients without unsigned types rely on it.
        carried = np.fromiter(listed, _CARRIED[form.field], min(len(listed), count))
        values = carried.astype(f"<u{dtype.itemsize}")
    if len(values) >= count:
        return values[:count].data.cast("B")
    filled = np.empty(count, values.dtype)
    filled[: len(values)] = values
    filled[len(values) :] = values[-1]
    return filled.tobytes()


def _packed(tensor: pb.TensorProto, field: str) -> memoryview:
    """The wire format of one list of numbers, however the client sent it."""
    alone = pb.TensorProto()
    alone.CopyFrom(tensor)
    alone.DiscardUnknownFields()
    for present, _ in alone.ListFields():
        if present.name != field:
            alone.ClearField(present.name)
    message = memoryview(alone.SerializeToString())
    at = len(_TAGS[field])
    while message[at] > 0x7F:
        at += 1
    return message[at + 1 :]


def _encode_numbers(output: OutputTensor, form: _Form, tensor: pb.TensorProto) -> None:
    if not form.raw:
        bits = np.uint16 if output.dtype is DType.FP16 else output.dtype.numpy
        getattr(tensor, form.field).extend(np.frombuffer(output.data, bits).tolist())
        return
    payload = bytes(output.data)
    if output.dtype is DType.BOOL:
        # An engine may call any byte but zero true; here it must be one.
        payload = np.frombuffer(output.data, np.uint8).astype(np.bool_).tobytes()
    tensor.MergeFromString(_TAGS[form.field] + encode_varint(len(payload)) + payload)


def _strings(name: str, tensor: pb.TensorProto, shape: Sequence[int], count: int, bytes_max: int) -> bytes:
    if tensor.tensor_content:
        return join_strings(_content_strings(name, tensor.tensor_content, count))
    elements = tensor.string_val[:count]
    if not elements:
        _refuse_other_lists(name, tensor, "string_val")
    last = join_strings(elements[-1:] or [b""])
    given = join_strings(elements)
    missing = count - len(elements)
    if len(given) + missing * len(last) > bytes_max:
        raise _too_large(name, shape, bytes_max)
    return given + last * missing


def _content_strings(name: str, content: bytes, count: int) -> Iterator[bytes]:
    lengths: list[int] = []
    at = 0
    while len(lengths) < count:
        end = next(
            (i for i in range(at, min(at + _LENGTH_BYTES_MAX, len(content))) if content[i] < 0x80), None
        )
        if end is None:
            raise _wrong(name, f"tensor_content does not begin with the lengths of {count} strings")
        lengths.append(sum((content[i] & 0x7F) << 7 * (i - at) for i in range(at, end + 1)))
        at = end + 1
    if at + sum(lengths) != len(content):
        raise _wrong(
            name, f"tensor_content has {len(content) - at} bytes for strings of {sum(lengths)} bytes"
        )
    for length in lengths:
        yield content[at : at + length]
        at += length


def _refuse_other_lists(name: str, tensor: pb.TensorProto, field: str) -> None:
    """Zeros stand for elements that were not sent, not for some that were sent in a wrong place."""
    for other in _TAGS:
        if other != field and getattr(tensor, other):
            raise _wrong(name, f"{_type_name(tensor.dtype)} is sent in {field}, not in {other}")


def _type_name(number: int) -> str:
    known = pb.DataType.DESCRIPTOR.values_by_number.get(number)
    return known.name if known else str(number)


def _too_large(name: str, shape: Sequence[int], bytes_max: int) -> InvalidRequestError:
    return _wrong(name, f"shape {list(shape)[:8]} is larger than a message may be ({bytes_max} bytes)")


def _wrong(name: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"tensor parsing error: {name}: {reason}")
