"""Both front ends get the same mutated messages and must say the same: status, details, answer.

From the repository's root: `python -m tests.native.differential [MESSAGES] [SEED]`. A message is found again by
seed and number.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.protobuf.message import DecodeError, Message

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.v1 import predictd_pb2 as v1
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fuzz.mutate import Mutator

PREDICT = "/predictd.v1.PredictionService/Predict"
PREDICT_STREAM = "/predictd.v1.PredictionService/PredictStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"
INFER_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
IN_FLIGHT = 16
TIMEOUT_SECONDS = 60.0
# What a message is sent as it is, besides its mutations: the loop in C answers it by itself from the second time on.
PLAIN_SHARE = 0.2
COMPRESSIONS = (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate)
_ERROR_ID = re.compile(r"internal error \S+")
# A message of megabytes would only be slow.
_MESSAGE_MIB = 4

_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a front end said to a message.

    Attributes:
        code: Name of the status.
        details: Of the status.
        answers: Messages, without what differs between any two runs.
    """

    code: str
    details: str
    answers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A message that was not treated alike."""

    method: str
    message: bytes
    compression: grpc.Compression
    grpcio: Said
    native: Said


def seeds() -> dict[str, Sequence[bytes]]:
    """Right requests of each method, to the models that `pair` serves."""
    predicts, infers = list(_predicts()), list(_infers())
    encoded = [message.SerializeToString() for message in predicts]
    inferred = [message.SerializeToString() for message in infers]
    return {PREDICT: encoded, PREDICT_STREAM: encoded, INFER: inferred, INFER_STREAM: inferred}


def _arrays() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "rows", {"x": np.arange(4, dtype=np.float32).reshape(1, 4)}
    yield "rows", {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    # Others are too small to be sent in fewer bytes.
    yield "rows", {"x": np.ones((64, 4), np.float32)}
    yield (
        "add_sub",
        {
            "INPUT0": np.arange(16, dtype=np.int32).reshape(1, 16),
            "INPUT1": np.ones((1, 16), np.int32),
        },
    )
    yield "scalar", {"x": np.float32(41)}
    yield "digits", {"x": np.arange(4, dtype=np.int64).reshape(2, 2)}
    yield "nonzero", {"x": np.eye(4, dtype=np.float32)}
    yield "versions", {"x": np.ones((2, 4), np.float32)}


def _predicts() -> Iterator[Message]:
    for number, (model, arrays) in enumerate(_arrays()):
        request = v1.PredictRequest(model=model, id=f"{number}" if number % 2 else "")
        for name, array in arrays.items():
            request.inputs.add(name=name, dtype=_dtype(array).value, shape=array.shape, data=array.tobytes())
        yield request
        if model == "versions":
            named = v1.PredictRequest()
            named.CopyFrom(request)
            named.version = 1
            named.outputs.append("y")
            yield named


def _infers() -> Iterator[Message]:
    for number, (model, arrays) in enumerate(_arrays()):
        request = oip.ModelInferRequest(model_name=model, id=f"{number}" if number % 2 else "")
        for name, array in arrays.items():
            request.inputs.add(name=name, datatype=_dtype(array).name, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        yield request
        if model == "versions":
            named = oip.ModelInferRequest()
            named.CopyFrom(request)
            named.model_version = "1"
            named.outputs.add(name="y")
            yield named


def _dtype(array: Any) -> DType:
    return next(dtype for dtype in DType if dtype is not DType.BYTES and dtype.numpy == array.dtype)


@contextmanager
def pair(root: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Two daemons with the same models: with grpcio, and with the native front end."""
    repository = root / "models"
    repository.mkdir()
    models.identity(repository / "rows.onnx")
    models.add_sub(repository / "add_sub.onnx")
    models.scalar(repository / "scalar.onnx")
    models.cast_to_text(repository / "digits.onnx")
    models.nonzero(repository / "nonzero.onnx")
    for version in (1, 3):
        folder = repository / "versions" / str(version)
        folder.mkdir(parents=True)
        models.affine(folder / "model.onnx", scale=float(version), bias=0.0)
    options = (repository, "--max-message-size", f"{_MESSAGE_MIB}MiB", "--pools", "shared")
    with (
        running(*options, "--frontend", "grpcio", folder=root / "grpcio") as reference,
        running(*options, "--frontend", "native", folder=root / "native") as native,
    ):
        yield reference, native


def messages(count: int, seed: int) -> Iterator[tuple[str, bytes, grpc.Compression]]:
    """So many messages, the methods that they are for, and how they are sent."""
    draw = random.Random(seed)
    mutators = {method: Mutator(right, draw) for method, right in seeds().items()}
    for _ in range(count):
        mutator = mutators[method := draw.choice(list(mutators))]
        right = draw.choice(mutator.seeds)
        message = right if draw.random() < PLAIN_SHARE else mutator.mutate(right)
        yield method, message, draw.choice(COMPRESSIONS)


async def compare(
    reference: str, native: str, count: int, seed: int
) -> tuple[list[Difference], Counter[str]]:
    """Send messages to both.

    Returns:
        What was not treated alike, and how often each status was given.
    """
    differences: list[Difference] = []
    codes: Counter[str] = Counter()
    waiting = iter(messages(count, seed))
    async with (
        grpc.aio.insecure_channel(reference, _OPTIONS) as one,
        grpc.aio.insecure_channel(native, _OPTIONS) as other,
    ):

        async def work() -> None:
            for call in waiting:
                said, also_said = await asyncio.gather(ask(one, *call), ask(other, *call))
                codes[said.code] += 1
                if said != also_said:
                    differences.append(Difference(*call, said, also_said))

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return differences, codes


async def ask(channel: Any, method: str, message: bytes, compression: grpc.Compression) -> Said:
    """Send one message."""
    answers: list[bytes] = []
    options = {"timeout": TIMEOUT_SECONDS, "compression": compression}
    try:
        if method in (PREDICT, INFER):
            answers.append(await channel.unary_unary(method)(message, **options))
        else:
            call = channel.stream_stream(method)(iter((message,)), **options)
            answers += [answer async for answer in call]
    except grpc.aio.AioRpcError as error:
        return Said(error.code().name, _plain(error.details() or ""), tuple(map(_same(method), answers)))
    return Said("OK", "", tuple(map(_same(method), answers)))


def _plain(details: str) -> str:
    return _ERROR_ID.sub("internal error", details)


def _same(method: str) -> Any:
    """Takes out of an answer what differs between any two runs: times, and which batch it was in."""

    def same(answer: bytes) -> bytes:
        if method in (INFER, INFER_STREAM):
            return answer
        kind = v1.PredictResponse if method == PREDICT else v1.PredictStreamResponse
        try:
            message: Any = kind.FromString(answer)
        except DecodeError:
            return answer
        response = message if method == PREDICT else message.response
        if method == PREDICT or message.HasField("response"):
            response.timing.Clear()
        elif message.HasField("error"):
            message.error.message = _plain(message.error.message)
        return bytes(message.SerializeToString())

    return same


def compressed() -> dict[str, tuple[str | None, bytes]]:
    """Messages that say that they are compressed, as no library sends them, and the encoding of their call."""
    right = seeds()[PREDICT][2]
    packed = gzip.compress(right)
    gzipped = {
        "bad": b"nothing of the kind",
        "cut off": packed[:-9],
        "without its last byte": packed[:-1],
        "with more behind it": packed + b"x",
        "two members": packed * 2,
        "another checksum": packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:],
        "no bytes": b"",
        "of nothing": gzip.compress(b""),
        "as large as may be": gzip.compress(bytes(_MESSAGE_MIB << 20)),
        # By less, grpcio says it in the words that it has for messages that are not compressed.
        "larger": gzip.compress(bytes(2 * _MESSAGE_MIB << 20)),
        "in deflate's format": zlib.compress(right),
        "right": packed,
        "of what is no request": gzip.compress(right[:-1]),
    }
    calls: dict[str, tuple[str | None, bytes]] = {
        name: ("gzip", message) for name, message in gzipped.items()
    }
    return calls | {
        "by nobody knows what": (None, packed),
        "by nothing": ("identity", packed),
        "deflate": ("deflate", zlib.compress(right)),
        "deflate without its frame": ("deflate", zlib.compress(right, wbits=-zlib.MAX_WBITS)),
        "in gzip's format": ("deflate", packed),
    }


def told(address: str, method: str, encoding: str | None, message: bytes) -> list[str]:
    """The status of a call with a compressed message, as curl shows it."""
    headers = ["content-type: application/grpc", "te: trailers"]
    headers += [f"grpc-encoding: {encoding}"] if encoding is not None else []
    shown = subprocess.run(
        [
            *("curl", "--silent", "--http2-prior-knowledge", "--max-time", "30", "--data-binary", "@-"),
            *("--dump-header", "-", "--output", "/dev/null"),
            *(part for header in headers for part in ("--header", header)),
            f"http://{address}{method}",
        ],
        input=b"\1" + len(message).to_bytes(4) + message,
        capture_output=True,
        check=True,
    )
    lines = (line.strip() for line in shown.stdout.decode().splitlines())
    # An empty text is as good as none.
    return sorted(
        line for line in lines if line.startswith(("grpc-status", "grpc-message")) and line[-1] != ":"
    )


def describe(difference: Difference) -> str:
    """A difference in words."""
    return (
        f"{difference.method} {difference.compression.name} {difference.message.hex()}\n"
        f"  grpcio: {difference.grpcio}\n  native: {difference.native}"
    )


def main() -> int:
    """Compare, and print what differs."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(f"{count} messages, seed {seed}")
    with tempfile.TemporaryDirectory() as folder, pair(Path(folder)) as (reference, native):
        differences, codes = asyncio.run(compare(reference.grpc, native.grpc, count, seed))
        print(native.metric("predictd_requests_total"))
    for difference in differences[:20]:
        print(describe(difference))
    print(f"{len(differences)} differences; {dict(codes)}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
