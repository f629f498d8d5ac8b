"""Calls of the TensorFlow Serving API, and the core that they are for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from predictd.engines.api import DType
from predictd.protos.tfs import example_pb2, tensor_pb2
from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.errors import UnknownModelError
from predictd.server.frontend.apis import tfs
from predictd.server.frontend.inference import (
    InferRequest,
    InferResponse,
    ModelInfo,
    OutputTensor,
    TensorInfo,
    VersionInfo,
)
from tests.unit.apis.test_fake_core import MODELS, FakeCore, refusal, serving, unary

if TYPE_CHECKING:
    from google.protobuf.message import Message


ResponseT = TypeVar("ResponseT", bound="Message")
Shape = tuple[int, ...]

LATEST = pb.ModelSpec(name="echo")


def specific(name: str, version: int) -> pb.ModelSpec:
    spec = pb.ModelSpec(name=name)
    spec.version.value = version
    return spec


def labelled(name: str, label: str) -> pb.ModelSpec:
    return pb.ModelSpec(name=name, version_label=label)


def signed(name: str, signature: str) -> pb.ModelSpec:
    return pb.ModelSpec(name=name, signature_name=signature)


def scoring(name: str, *outputs: TensorInfo) -> ModelInfo:
    """A model with one version, 4, that takes two floats a row."""
    inputs = (TensorInfo("x", DType.FP32, (-1, 2)),)
    return ModelInfo(name, (VersionInfo(4, "READY", inputs=inputs, outputs=outputs, batches=True),), 4)


class RoutedCore(FakeCore):
    """Routes as the front end does; its scoring models answer with what was prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = OutputTensor("y", DType.FP32, (1, 1), bytes(4))
        self.failure: Exception | None = None
        self.drawn = 0
        self.known = (
            *MODELS,
            scoring("classes", TensorInfo("y", DType.FP32, (-1, 3))),
            scoring("column", TensorInfo("y", DType.FP32, (-1, 1))),
            scoring("flat", TensorInfo("y", DType.FP32, (-1,))),
            scoring("image", TensorInfo("y", DType.FP32, (-1, 3, 3))),
            scoring("integers", TensorInfo("y", DType.INT64, (-1, 3))),
            scoring("two", TensorInfo("y", DType.FP32, (-1, 3)), TensorInfo("z", DType.FP32, (-1,))),
        )

    def version(  # type: ignore[explicit-override]
        self, name: str, version: int | None, label: str | None
    ) -> VersionInfo:
        if label is not None and all(label not in info.labels for info in self.model(name).versions):
            raise UnknownModelError(f"model {name!r} has no label {label!r}")
        return super().version(name, version, label)

    def draw(  # type: ignore[explicit-override]
        self, name: str, version: int | None, label: str | None
    ) -> VersionInfo:
        self.drawn += 1
        return super().draw(name, version, label)

    async def infer(  # type: ignore[explicit-override]
        self, request: InferRequest, api: str, deadline_ns: int
    ) -> InferResponse:
        self.version(request.model, request.version, request.label)
        if self.failure is not None:
            raise self.failure
        response = await super().infer(request, api, deadline_ns)
        if any(request.model == model.name for model in MODELS):
            return response
        return InferResponse(request.model, request.version or 0, [self.scores], 1, 1, 1)


def ask(
    method: str,
    request: Message,
    kind: type[ResponseT],
    core: FakeCore | None = None,
    *,
    tensor_content: bool = False,
) -> ResponseT:
    """The answer to one call of PredictionService."""

    async def scenario() -> bytes:
        services = tfs.handlers(core or RoutedCore(), tensor_content=tensor_content)
        async with serving(*services) as channel:
            return await unary(channel, f"/{tfs.PREDICTION_SERVICE}/{method}")(request.SerializeToString())

    return kind.FromString(asyncio.run(scenario()))


def refused(
    method: str,
    request: Message | bytes,
    core: FakeCore | None = None,
    *,
    service: str = tfs.PREDICTION_SERVICE,
    max_message_bytes: int = 1 << 20,
) -> tuple[grpc.StatusCode, str]:
    """How one call ends."""
    data = request if isinstance(request, bytes) else request.SerializeToString()

    async def scenario() -> grpc.aio.AioRpcError:
        async with serving(*tfs.handlers(core or RoutedCore(), max_message_bytes)) as channel:
            return await refusal(unary(channel, f"/{service}/{method}")(data))

    error = asyncio.run(scenario())
    return error.code(), error.details() or ""


def floats(*values: float, shape: Shape = (1, 3)) -> tensor_pb2.TensorProto:
    dims = [tensor_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    return tensor_pb2.TensorProto(
        dtype=tensor_pb2.DT_FLOAT, tensor_shape=tensor_pb2.TensorShapeProto(dim=dims), float_val=values
    )


def rows(*values: tuple[float, float]) -> pb.Input:
    """Examples with a feature "x"."""
    made = []
    for row in values:
        feature = example_pb2.Feature(float_list=example_pb2.FloatList(value=row))
        made.append(example_pb2.Example(features=example_pb2.Features(feature={"x": feature})))
    return pb.Input(example_list=pb.ExampleList(examples=made))
