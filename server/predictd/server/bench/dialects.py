"""What the load generator must know of an API to send prepared messages: paths, and ids inside streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

APIS = ("predictd", "oip", "tfs")
_STREAMING = ("predictd", "oip")
_TENSORFLOW = "tensorflow.serving.PredictionService"
_PATHS = {
    ("predictd", False): "/predictd.v1.PredictionService/Predict",
    ("predictd", True): "/predictd.v1.PredictionService/PredictStream",
    ("oip", False): "/inference.GRPCInferenceService/ModelInfer",
    ("oip", True): "/inference.GRPCInferenceService/ModelStreamInfer",
    ("tfs", False): f"/{_TENSORFLOW}/Predict",
}
# Where requests have their ids: field 4 of predictd's, 3 of the Open Inference Protocol's. Both are strings.
_ID_TAGS = {"predictd": b"\x22", "oip": b"\x1a"}

Outcome = Callable[[bytes], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """An API, unary or streamed.

    Attributes:
        api: One of `APIS`.
        streams: Requests are messages of one stream a connection, else each is a call.
        path: The method.
        outcome: Of a streamed answer: the id of its request, and what went wrong, or nothing.
    """

    api: str
    streams: bool
    path: str
    outcome: Outcome

    def named(self, message: bytes, name: str) -> bytes:
        """A request with an id. Of a field that stands twice the last counts, so it need not be read."""
        return message + _ID_TAGS[self.api] + bytes([len(name)]) + name.encode()


def dialect(api: str, *, streams: bool) -> Dialect:
    """An API by its name. Raises ValueError where it has no streams."""
    if streams and api not in _STREAMING:
        raise ValueError(f"the API {api} has no streams; {' and '.join(_STREAMING)} have")
    return Dialect(api, streams, _PATHS[api, streams], _outcome(api) if streams else _never)


def bare(path: str) -> Dialect:
    """Unary calls of a method whose messages nobody looks into."""
    return Dialect("", streams=False, path=path, outcome=_never)


def _never(_message: bytes) -> tuple[str, str]:
    raise TypeError("a unary answer has no id. This is a bug.")


def _outcome(api: str) -> Outcome:
    # Only who streams pays for protobuf.
    if api == "oip":
        from predictd.protos.oip import grpc_service_pb2 as oip

        def of_oip(message: bytes) -> tuple[str, str]:
            answer = oip.ModelStreamInferResponse.FromString(message)
            return answer.infer_response.id, _line(answer.error_message)

        return of_oip
    from predictd.protos.v1 import predictd_pb2 as v1

    def of_v1(message: bytes) -> tuple[str, str]:
        answer = v1.PredictStreamResponse.FromString(message)
        if answer.WhichOneof("result") == "response":
            return answer.id, ""
        return answer.id, f"status {answer.error.code}: {_line(answer.error.message)}"

    return of_v1


def _line(text: str) -> str:
    return " ".join(text.split())
