"""The blocking client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

import grpc

from predictd.client import channel, errors, messages
from predictd.client.messages import Model, Prediction, Request
from predictd.protos.v1 import control_pb2 as control
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.protos.v1 import routing_pb2 as routing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from predictd.client.tensors import TensorLike

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Client:
    """A connection to a daemon. Threads may share one. Also a context manager.

    Args:
        target: `host:port`, or another gRPC target.
        deadline: Seconds that a call may take unless it says otherwise.
    """

    def __init__(self, target: str, *, deadline: float = messages.DEADLINE_SECONDS) -> None:
        self._deadline = messages.deadline_seconds(deadline, deadline)
        self._channel = grpc.insecure_channel(target, options=channel.OPTIONS)
        self._predict = self._channel.unary_unary(
            channel.PREDICT,
            request_serializer=v1.PredictRequest.SerializeToString,
            response_deserializer=v1.PredictResponse.FromString,
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

    def predict(
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
        """Run a model once. Arguments, result and exceptions are those of `AsyncClient.predict`."""
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
        return messages.prediction(self._call(self._predict, request, deadline, about))

    def models(self, *, deadline: float | None = None) -> tuple[Model, ...]:
        """Every model that the daemon serves, or tries to."""
        response = self._call(self._list_models, v1.ListModelsRequest(), deadline)
        return tuple(messages.model(each) for each in response.models)

    def model(self, name: str, *, deadline: float | None = None) -> Model:
        """One model. Raises NotFoundError if the daemon has none of that name."""
        return messages.model(self._call(self._get_model, v1.GetModelRequest(model=name), deadline))

    def set_label(
        self,
        model: str,
        label: str,
        version: int | None,
        *,
        allow_unready: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Give a version a label, or take the label back. As `AsyncClient.set_label`."""
        request = messages.label_change(model, label, version, allow_unready=allow_unready)
        self._call(self._set_label, request, deadline)

    def set_split(
        self,
        model: str,
        shares: Mapping[int, int],
        *,
        allow_unready: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Divide the requests that name neither version nor label. As `AsyncClient.set_split`."""
        request = messages.split_change(model, shares, allow_unready=allow_unready)
        self._call(self._set_split, request, deadline)

    def load_model(
        self, name: str, *, config: Mapping[str, object] | None = None, deadline: float | None = None
    ) -> None:
        """Load a model. Arguments and exceptions are those of `AsyncClient.load_model`."""
        request = messages.load_request(name, config)
        self._call(self._load_model, request, deadline)

    def unload_model(self, name: str, *, deadline: float | None = None) -> None:
        """Unload a model of a daemon whose models are loaded by command; done once its requests are finished."""
        self._call(self._unload_model, control.UnloadModelRequest(model=name), deadline)

    def close(self) -> None:
        """Close the connection. Calls in flight fail with RequestCancelledError."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        deadline: float | None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> _Response:
        timeout = messages.deadline_seconds(deadline, self._deadline)
        try:
            return method(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from error
