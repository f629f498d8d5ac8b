"""Requests as each API has them, from arrays."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from predictd.engines.api import Array, DType, Signature
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.tfs import serving_pb2 as tfs
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.frontend.apis.tfs_tensors import data_type

_LENGTH = struct.Struct("<I")


def encode(api: str, model: str, signature: Signature, arrays: Sequence[Array | None]) -> bytes:
    """A serialized request.

    Args:
        api: One of `dialects.APIS`.
        model: Whom it asks.
        signature: Of the model.
        arrays: In the order of its inputs; None for an optional one that is absent.
    """
    given = [
        (spec.name, spec.dtype, array)
        for spec, array in zip(signature.inputs, arrays, strict=True)
        if array is not None
    ]
    if api == "predictd":
        return _v1(model, given)
    return _oip(model, given) if api == "oip" else _tfs(model, given)


Given = Sequence[tuple[str, DType, Array]]


def _v1(model: str, given: Given) -> bytes:
    tensors = [
        v1.Tensor(name=name, dtype=v1.DataType.Name(dtype.value), shape=array.shape, data=_raw(dtype, array))
        for name, dtype, array in given
    ]
    return v1.PredictRequest(model=model, inputs=tensors).SerializeToString()


def _oip(model: str, given: Given) -> bytes:
    request = oip.ModelInferRequest(model_name=model)
    for name, dtype, array in given:
        request.inputs.add(name=name, datatype=dtype.name, shape=array.shape)
        request.raw_input_contents.append(_raw(dtype, array))
    return request.SerializeToString()


def _tfs(model: str, given: Given) -> bytes:
    request = tfs.PredictRequest()
    request.model_spec.name = model
    for name, dtype, array in given:
        tensor = request.inputs[name]
        tensor.dtype = data_type(dtype)
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        if dtype is DType.BYTES:
            tensor.string_val.extend(_texts(array))
        else:
            tensor.tensor_content = _raw(dtype, array)
    return request.SerializeToString()


def _raw(dtype: DType, array: Array) -> bytes:
    """Little-endian and row-major; of text the length of each element before it."""
    if dtype is DType.BYTES:
        return b"".join(_LENGTH.pack(len(text)) + text for text in _texts(array))
    return np.asarray(array, array.dtype.newbyteorder("<")).tobytes()


def _texts(array: Array) -> list[bytes]:
    return [each if isinstance(each, bytes) else str(each).encode() for each in array.ravel().tolist()]
