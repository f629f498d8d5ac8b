"""What a server says of its models, in each of the APIs, and whether it answers a first request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from predictd.engines.api import DType, Signature, TensorSpec
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.tfs import serving_pb2 as tfs
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.bench.access import PLAIN, Access
from predictd.server.frontend.apis.tfs_tensors import data_type
from predictd.server.measure.engine_process import MeasureError

_METADATA_SECONDS = 10.0
# A first answer may have to wait for a model's warm-up.
_ANSWER_SECONDS = 60.0
_UNLIMITED: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
_TFS = "tensorflow.serving"
_SIGNATURE = "serving_default"


class Server:
    """A server, asked with the ordinary client.

    Args:
        target: Where it listens.
        api: One of `dialects.APIS`.
        access: How it is reached.
    """

    def __init__(self, target: str, api: str, access: Access = PLAIN) -> None:
        self._target = target
        self._api = api
        self._metadata = access.metadata
        self._channel = access.channel(target, _UNLIMITED)

    def signature(self, model: str) -> Signature:
        """What the model takes. Its batch dimension is a first one that varies, in all inputs.

        Raises:
            MeasureError: It does not say, or says what no model has.
        """
        with self._told(model):
            ask = {"predictd": self._v1, "oip": self._oip, "tfs": self._tfs}[self._api]
            specs = tuple(ask(model))
        if not specs:
            raise MeasureError(f"model {model!r} of {self._target} is not ready")
        batches = all(spec.shape[:1] == (-1,) for spec in specs)
        return Signature(specs, (), batches, None)

    def try_once(self, model: str, path: str, body: bytes) -> None:
        """Send a request and wait for its answer. Raises MeasureError with what the server says against it."""
        with self._told(model):
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
            call(body, timeout=_ANSWER_SECONDS, metadata=self._metadata)

    def close(self) -> None:
        """Leave the server."""
        self._channel.close()

    @contextmanager
    def _told(self, model: str) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            # At run time it is a call, too.
            call: Any = error
            details = " ".join(str(call.details()).split())
            raise MeasureError(f"{self._target}, model {model!r}: {call.code().name}: {details}") from error

    def _call(self, path: str, request: Any, answer: type[Any]) -> Any:
        method: Callable[..., Any] = self._channel.unary_unary(
            path, type(request).SerializeToString, answer.FromString
        )
        return method(request, timeout=_METADATA_SECONDS, metadata=self._metadata)

    def _v1(self, name: str) -> Iterator[TensorSpec]:
        model = self._call(
            "/predictd.v1.PredictionService/GetModel", v1.GetModelRequest(model=name), v1.Model
        )
        for version in model.versions:
            if version.version == model.default_version:
                for tensor in version.inputs:
                    yield TensorSpec(tensor.name, DType(tensor.dtype), tuple(tensor.shape), tensor.optional)

    def _oip(self, name: str) -> Iterator[TensorSpec]:
        answer = self._call(
            "/inference.GRPCInferenceService/ModelMetadata",
            oip.ModelMetadataRequest(name=name),
            oip.ModelMetadataResponse,
        )
        for tensor in answer.inputs:
            yield TensorSpec(
                tensor.name, self._dtype(name, tensor.name, tensor.datatype), tuple(tensor.shape)
            )

    def _dtype(self, model: str, tensor: str, text: str) -> DType:
        try:
            return DType[text]
        except KeyError:
            raise MeasureError(f"model {model!r}: input {tensor!r} is {text}, which is not known") from None

    def _tfs(self, name: str) -> Iterator[TensorSpec]:
        request = tfs.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = name
        answer = self._call(
            f"/{_TFS}.PredictionService/GetModelMetadata", request, tfs.GetModelMetadataResponse
        )
        signatures = tfs.SignatureDefMap.FromString(answer.metadata["signature_def"].value).signature_def
        if _SIGNATURE not in signatures:
            raise MeasureError(f"model {name!r} has no signature {_SIGNATURE!r}; it has {_list(signatures)}")
        known = {data_type(dtype): dtype for dtype in DType}
        for tensor, info in sorted(signatures[_SIGNATURE].inputs.items()):
            if info.dtype not in known:
                raise MeasureError(f"model {name!r}: input {tensor!r} is of type {info.dtype}: not known")
            shape = tuple(dim.size for dim in info.tensor_shape.dim)
            yield TensorSpec(tensor, known[info.dtype], shape)


def _list(names: Sequence[str] | Any) -> str:
    return ", ".join(sorted(names)) or "none"
