"""What the clients send and what must come back."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.subject import Subject

METHOD = "/predictd.v1.PredictionService/Predict"

# Timing and version are varints, so the length of an answer moves by a few bytes.
_LENGTH_TOLERANCE_BYTES = 32
# Of the largest element.
_TOLERANCE = 1e-3
# NumPy's names, and those of predictd.v1's DataType.
_DTYPES = {"float32": "FP32", "int64": "INT64"}
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Payload(msgspec.Struct):
    """Distinct requests with their answers, sent in turn.

    Attributes:
        bodies: Serialized requests.
        answers: For each the bytes that come back, or of the first output where `tensor` is set.
        sizes: For each the length of its serialized answer.
        dtypes: For each NumPy's name of its first output: floats are compared with a tolerance, because a model
            rounds differently in batches of different sizes. Nothing where the answer is compared as it is.
        models: For each whom it asks.
    """

    bodies: list[bytes]
    answers: list[bytes]
    sizes: list[int]
    dtypes: list[str]
    models: list[str]

    @property
    def answer_bytes(self) -> int:
        """Mean length of a serialized answer."""
        return round(sum(self.sizes) / len(self.sizes))

    def save(self, path: Path) -> Path:
        """Write it where client processes can read it."""
        path.write_bytes(msgspec.msgpack.encode(self))
        return path

    @classmethod
    def read(cls, path: Path) -> Payload:
        """What `save` wrote."""
        return msgspec.msgpack.decode(path.read_bytes(), type=cls)

    def plausible(self, index: int, answer: bytes) -> bool:
        """Cheap enough to be asked of every answer."""
        return abs(len(answer) - self.sizes[index]) <= _LENGTH_TOLERANCE_BYTES

    def right(self, index: int, answer: bytes) -> bool:
        """Whether this is the answer to that request."""
        if not self.dtypes:
            return answer == self.answers[index]
        # Clients of the echo server need no protobuf.
        from predictd.protos.v1 import predictd_pb2

        response = predictd_pb2.PredictResponse.FromString(answer)
        return _close(response.outputs[0].data, self.answers[index], self.dtypes[index])

    def in_turns_with(self, other: Payload) -> Payload:
        """One of each after the other; both have as many."""
        pairs = [[getattr(each, name) for each in (self, other)] for name in self.__struct_fields__]
        return Payload(*([one for both in zip(*pair, strict=True) for one in both] for pair in pairs))


def _close(given: bytes, expected: bytes, dtype: str) -> bool:
    if not dtype.startswith("float"):
        return given == expected
    left, right = np.frombuffer(given, dtype), np.frombuffer(expected, dtype)
    return left.shape == right.shape and bool(np.abs(left - right).max() <= _TOLERANCE * np.abs(right).max())


def predict_payload(subject: Subject, count: int) -> Payload:
    """Requests of one random row each, answered by the model itself. `sizes` are still to be learnt."""
    # Read when the library is loaded; the benchmark must not phone home.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    from predictd.protos.v1 import predictd_pb2

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(
        str(subject.path), options, providers=["CPUExecutionProvider"]
    )
    payload = Payload([], [], [], [], [])
    for seed in range(count):
        row = subject.row(seed)
        tensors = [
            predictd_pb2.Tensor(
                name=name, dtype=_DTYPES[array.dtype.name], shape=array.shape, data=array.tobytes()
            )
            for name, array in row.items()
        ]
        request = predictd_pb2.PredictRequest(model=subject.name, inputs=tensors)
        payload.bodies.append(request.SerializeToString())
        answer = session.run(None, dict(row))[0]
        payload.answers.append(answer.tobytes())
        payload.dtypes.append(answer.dtype.name)
        payload.models.append(subject.name)
    dtype = payload.dtypes[0]
    if any(_close(*pair, dtype) for pair in itertools.combinations(payload.answers, 2)):
        raise AssertionError(
            f"{subject.name} gives answers that cannot be told apart, so none can be verified"
        )
    return payload


def echo_payload(like: Payload) -> Payload:
    """The same requests for the echo server, which cuts or pads them to the mean length of the real answers."""
    size = like.answer_bytes
    answers = [body[:size].ljust(size, b"\0") for body in like.bodies]
    return Payload(like.bodies, answers, [size] * len(answers), [], like.models)


def learn_answer(target: str, payload: Payload) -> None:
    """Send each once with the reference client: is the answer right, and how long is it?"""
    import grpc

    payload.sizes.clear()
    with grpc.insecure_channel(target, _OPTIONS) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        for index, body in enumerate(payload.bodies):
            answer = call(body, timeout=60, wait_for_ready=True)
            if not payload.right(index, answer):
                raise AssertionError(f"{target} gives a wrong answer to a single request")
            payload.sizes.append(len(answer))
