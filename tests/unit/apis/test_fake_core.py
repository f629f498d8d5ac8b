"""The fake that the other tests of this folder serve, how they serve it, and proof that it is a Core."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import numpy as np

from predictd.engines.api import DType
from predictd.server.control.commands import Command, CommandDone
from predictd.server.errors import ModelUnavailableError, OverloadedError, UnknownModelError
from predictd.server.frontend.control import Control
from predictd.server.frontend.heading import Heading
from predictd.server.frontend.inference import (
    DurationSum,
    InferRequest,
    InferResponse,
    InputTensor,
    LaneStatistics,
    ModelInfo,
    OutputTensor,
    TensorInfo,
    VersionInfo,
)
from predictd.server.frontend.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from predictd.server.frontend.core import Core
    from predictd.server.frontend.pending import Reply

ECHO_1 = VersionInfo(
    version=1,
    state="READY",
    engine="onnxruntime",
    inputs=(TensorInfo("x", DType.FP32, (-1, 3)), TensorInfo("s", DType.BYTES, (-1,), optional=True)),
    outputs=(TensorInfo("x", DType.FP32, (-1, 3)), TensorInfo("s", DType.BYTES, (-1,))),
    batches=True,
    max_batch_size=32,
    max_delay_ns=1_500_000,
    instances=2,
    labels=("stable",),
)
MODELS = (
    ModelInfo("broken", (VersionInfo(1, "FAILED", reason="model.onnx: no such operator"),), 0),
    ModelInfo("echo", (VersionInfo(3, "LOADING"), VersionInfo(2, "UNLOADING"), ECHO_1), 1),
    ModelInfo(
        "single",
        (
            VersionInfo(
                version=7,
                state="READY",
                engine="other",
                inputs=(TensorInfo("x", DType.BF16, (2, 2)),),
                outputs=(TensorInfo("y", DType.INT8, ()),),
                max_batch_size=32,
            ),
        ),
        7,
    ),
)
STATISTICS = (
    LaneStatistics(
        "echo",
        1,
        last_inference_ms=1_700_000_000_000,
        inference_count=10,
        execution_count=3,
        success=DurationSum(8, 80),
        fail=DurationSum(1, 5),
        queue=DurationSum(8, 20),
        compute_infer=DurationSum(8, 50),
        batches={4: DurationSum(2, 30), 2: DurationSum(1, 20)},
    ),
    LaneStatistics("echo", 2, inference_count=1),
    LaneStatistics("single", 7),
)


@dataclass(frozen=True)
class Seen:
    request: InferRequest
    api: str
    deadline_ns: int


class FakeCore:
    """Answers each request with its inputs, unless told to wait or to fail."""

    def __init__(self) -> None:
        self.ready = True
        self.uploads = Uploads()
        self.known: Sequence[ModelInfo] = MODELS
        self.seen: list[Seen] = []
        self.arrived = asyncio.Condition()
        self.gates: dict[str, asyncio.Event] = {}
        self.failures: dict[str, Exception] = {}
        self.cancelled: set[str] = set()
        self.in_flight = 0
        self.in_flight_peak = 0
        self.pressed = False
        self.refuse_unread = False
        self.unread: list[tuple[Heading, str, int]] = []
        self.unparsed: list[tuple[Heading, str, int]] = []

    def gate(self, request_id: str) -> asyncio.Event:
        """Hold the request with this id until the event is set."""
        return self.gates.setdefault(request_id, asyncio.Event())

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        async with self.arrived:
            await self.arrived.wait_for(condition)

    async def infer(self, request: InferRequest, api: str, deadline_ns: int) -> InferResponse:
        self.seen.append(Seen(request, api, deadline_ns))
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)
        try:
            await self._tell()
            if request.id in self.gates:
                await self.gates[request.id].wait()
        except asyncio.CancelledError:
            self.cancelled.add(request.id)
            await self._tell()
            raise
        finally:
            self.in_flight -= 1
        if request.id in self.failures:
            raise self.failures[request.id]
        return echo(request)

    def begin(self, request: InferRequest, api: str, deadline_ns: int, reply: Reply) -> None:
        reply.resume(self.infer(request, api, deadline_ns))

    def check_unread(self, heading: Heading, api: str, deadline_ns: int) -> None:
        self.unread.append((heading, api, deadline_ns))
        if self.refuse_unread:
            raise OverloadedError("too much to do", 0.5)

    def check_unparsed(self, heading: Heading, api: str, deadline_ns: int) -> None:
        self.unparsed.append((heading, api, deadline_ns))
        raise OverloadedError("too much to do", 0.5)

    def models(self) -> Sequence[ModelInfo]:
        return self.known

    def model(self, name: str) -> ModelInfo:
        for model in self.known:
            if model.name == name:
                return model
        raise UnknownModelError(f"no model {name!r}")

    def version(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        model = self.model(name)
        for info in model.versions:
            if info.version == (version or model.default_version) or label in info.labels:
                if info.state != "READY":
                    raise ModelUnavailableError(f"model {name!r} version {info.version} is {info.state}")
                return info
        if version is None and label is None:
            raise ModelUnavailableError(f"no version of model {name!r} is ready")
        raise UnknownModelError(f"model {name!r} has no version {version}")

    def draw(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        return self.version(name, version, label)

    async def statistics(self) -> Sequence[LaneStatistics]:
        return STATISTICS

    async def _tell(self) -> None:
        async with self.arrived:
            self.arrived.notify_all()


class FakeControl(Control):
    """Answers each command at once.

    Args:
        allowed: Whoever asks may give commands; for what is shown, since refusing is not for it.
        status: See below.

    Attributes:
        sent: The commands.
        status: What becomes of them, as CommandDone has it; empty when they are carried out.
    """

    def __init__(self, *, allowed: bool = True, status: str = "") -> None:
        super().__init__(self._answer)
        self._allowed = allowed
        self.sent: list[Command] = []
        self.status = status

    @property
    def allowed(self) -> bool:  # type: ignore[explicit-override]
        return self._allowed

    def _answer(self, command: Command) -> None:
        self.sent.append(command)
        self.done(
            CommandDone(seq=command.seq, status=self.status, message="the reason" if self.status else "")
        )


def echo(request: InferRequest) -> InferResponse:
    outputs = [
        OutputTensor(tensor.name, tensor.dtype, tensor.shape, memoryview(tensor.data))
        for tensor in request.inputs
    ]
    return InferResponse(request.model, request.version or 1, outputs, 1_000, 2_000, 3)


@asynccontextmanager
async def serving(*handlers: grpc.GenericRpcHandler) -> AsyncIterator[grpc.aio.Channel]:
    """Serve handlers on a free port; gives a channel to them."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    async with channel_to(server) as channel:
        yield channel


@asynccontextmanager
async def channel_to(server: grpc.aio.Server) -> AsyncIterator[grpc.aio.Channel]:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def unary(channel: grpc.aio.Channel, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(method)


def stream(channel: grpc.aio.Channel, method: str) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """An open stream."""
    multicallable: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
    return multicallable()


async def refusal(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was answered")


def test_the_fake_is_a_core_that_echoes() -> None:
    async def scenario() -> InferResponse:
        core: Core = FakeCore()
        data = np.array([1, 2, 3], np.float32).tobytes()
        return await core.infer(InferRequest("echo", [InputTensor("x", DType.FP32, (1, 3), data)]), "test", 0)

    response = asyncio.run(scenario())
    assert [(o.name, o.dtype, o.shape) for o in response.outputs] == [("x", DType.FP32, (1, 3))]
    assert bytes(response.outputs[0].data) == np.array([1, 2, 3], np.float32).tobytes()
