"""The asyncio client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

import grpc
import grpc.aio

from predictd.client import channel, errors, messages, streaming
from predictd.client.messages import Model, Prediction, Request
from predictd.protos.v1 import control_pb2 as control
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.protos.v1 import routing_pb2 as routing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
    from types import TracebackType

    from predictd.client.tensors import TensorLike

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncClient:
    """A connection to a daemon. Also an async context manager.

    Make it where an event loop runs; it belongs to that loop. Any number of its calls may be in flight.

    Args:
        target: `host:port`, or another gRPC target.
        deadline: Seconds that a call may take unless it says otherwise.
    """

    def __init__(self, target: str, *, deadline: float = messages.DEADLINE_SECONDS) -> None:
        self._deadline = messages.deadline_seconds(deadline, deadline)
        self._channel = grpc.aio.insecure_channel(target, options=channel.OPTIONS)
        self._predict = self._channel.unary_unary(
            channel.PREDICT,
            request_serializer=v1.PredictRequest.SerializeToString,
            response_deserializer=v1.PredictResponse.FromString,
        )
        self._predict_stream = self._channel.stream_stream(
            channel.PREDICT_STREAM,
            request_serializer=v1.PredictRequest.SerializeToString,
            response_deserializer=v1.PredictStreamResponse.FromString,
        )
        self._list_models = self._channel.unary_unary(
            channel.LIST_MODELS,
            request_serializer=v1.ListModelsRequest.SerializeToString,
            response_deserializer=v1.ListModelsResponse.FromString,
        )
        self._get_model = self._channel.unary_unary(
            channel.GET_MODEL,
            request_serializer=v1.GetModelRequest.SerializeToString,
            response_deserializer=v1.Model.FromString,
        )
        self._set_label = self._channel.unary_unary(
            channel.SET_LABEL,
            request_serializer=routing.SetLabelRequest.SerializeToString,
            response_deserializer=routing.SetLabelResponse.FromString,
        )
        self._set_split = self._channel.unary_unary(
            channel.SET_SPLIT,
            request_serializer=routing.SetSplitRequest.SerializeToString,
            response_deserializer=routing.SetSplitResponse.FromString,
        )
        self._load_model = self._channel.unary_unary(
            channel.LOAD_MODEL,
            request_serializer=control.LoadModelRequest.SerializeToString,
            response_deserializer=control.LoadModelResponse.FromString,
        )
        self._unload_model = self._channel.unary_unary(
            channel.UNLOAD_MODEL,
            request_serializer=control.UnloadModelRequest.SerializeToString,
            response_deserializer=control.UnloadModelResponse.FromString,
        )

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, TensorLike],
        *,
        outputs: Sequence[str] = (),
        version: int | None = None,
        label: str | None = None,
        priority: int = 0,
        deadline: float | None = None,
        id: str = "",  # noqa: A002 - the protocol's word
    ) -> Prediction:
        """Run a model once.

        Args:
            model: Its name.
            inputs: Arrays, or what NumPy makes arrays of, by input name. `predictd.client.tensors` says how
                BF16 and strings are given.
            outputs: Names wanted; empty for all.
            version: The version to ask; neither version nor label asks the default.
            label: Instead of a version, one of its names.
            priority: 0 is the default; 1 is served first, higher numbers later.
            deadline: Seconds until the answer is no use; None for the client's own.
            id: For logs and traces.

        Raises:
            PredictdError: There is no answer; its subclasses say why.
            TypeError: An input is no array of a dtype that predictd knows.
            ValueError: An input is ragged, or version and label are both given.
        """
        request = messages.build(
            Request(
                model=model,
                inputs=inputs,
                outputs=outputs,
                version=version,
                label=label,
                priority=priority,
                id=id,
            )
        )
        about = channel.about(model, priority)
        return messages.prediction(await self._call(self._predict, request, deadline, about))

    def predict_stream(
        self, requests: AsyncIterable[Request], *, deadline: float | None = None
    ) -> AsyncGenerator[tuple[str, Prediction | errors.PredictdError], None]:
        """Send many requests over one stream and yield the answers as they come, in any order.

        A request that fails yields its error and the stream goes on. `requests` is read only as fast as the
        daemon accepts them. Leave early through `contextlib.aclosing`, which cancels what is in flight.

        Args:
            requests: What to send. A request without an id gets its number in the stream, from "0".
            deadline: Seconds that the stream may bring no answer while it owes one; None for the client's.

        Yields:
            The id of a request and its prediction, or the error that it met.

        Raises:
            PredictdError: The stream itself broke. What was not yet yielded has no answer.
            TypeError: As `predict` does.
            ValueError: As `predict` does, and for an id that is already in flight.
        """
        seconds = messages.deadline_seconds(deadline, self._deadline)
        return streaming.exchange(self._predict_stream, requests, seconds)

    async def models(self, *, deadline: float | None = None) -> tuple[Model, ...]:
        """Every model that the daemon serves, or tries to."""
        response = await self._call(self._list_models, v1.ListModelsRequest(), deadline)
        return tuple(messages.model(each) for each in response.models)

    async def model(self, name: str, *, deadline: float | None = None) -> Model:
        """One model. Raises NotFoundError if the daemon has none of that name."""
        return messages.model(await self._call(self._get_model, v1.GetModelRequest(model=name), deadline))

    async def set_label(
        self,
        model: str,
        label: str,
        version: int | None,
        *,
        allow_unready: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Give a version a label, or take the label back. Every call that follows is routed the new way.

        Args:
            model: Its name.
            label: What requests shall say.
            version: What it shall mean. None takes back what was set at run time; what the model's configuration says
                of the label holds again.
            allow_unready: Also for a version that is not ready; the label means what it meant before until it is.
            deadline: Seconds; None for the client's own.

        Raises:
            NotFoundError: There is no such model, version or label.
            PredictdError: The version is not ready, or the daemon takes no changes here.
        """
        request = messages.label_change(model, label, version, allow_unready=allow_unready)
        await self._call(self._set_label, request, deadline)

    async def set_split(
        self,
        model: str,
        shares: Mapping[int, int],
        *,
        allow_unready: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Divide the requests that name neither version nor label. Every call that follows is routed the new way.

        Args:
            model: Its name.
            shares: Percent by version; they make 100. None at all: the highest version that is ready gets all.
            allow_unready: Also with versions that are not ready; the others share their requests until they are.
            deadline: Seconds; None for the client's own.

        Raises:
            InvalidRequestError: The shares do not make 100.
            NotFoundError: There is no such model or version.
            PredictdError: A version is not ready, or the daemon takes no changes here.
        """
        request = messages.split_change(model, shares, allow_unready=allow_unready)
        await self._call(self._set_split, request, deadline)

    async def load_model(
        self, name: str, *, config: Mapping[str, object] | None = None, deadline: float | None = None
    ) -> None:
        """Load a model as it is on the daemon's disk now, again if it failed; done once it is served.

        Args:
            name: Its name.
            config: Fields of Triton's ModelConfig that lie over the model's own configuration.
            deadline: Seconds to wait; the daemon goes on loading. None for the client's own.

        Raises:
            PredictdError: It cannot be loaded; `code` and the message say why. What served before serves on.
        """
        request = messages.load_request(name, config)
        await self._call(self._load_model, request, deadline)

    async def unload_model(self, name: str, *, deadline: float | None = None) -> None:
        """Unload a model of a daemon whose models are loaded by command; done once its requests are finished."""
        await self._call(self._unload_model, control.UnloadModelRequest(model=name), deadline)

    async def close(self) -> None:
        """Close the connection. Calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        deadline: float | None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> _Response:
        timeout = messages.deadline_seconds(deadline, self._deadline)
        try:
            return await method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from error
