"""Clients that others wrote, each over TCP, over TLS, and over a unix socket, against whichever front end is tried."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2

from predictd.protos.tfs import serving_pb2, tensor_pb2
from predictd.protos.v1 import predictd_pb2 as pb
from tests.fixtures import models
from tests.fixtures.certificates import Authority
from tests.fixtures.daemon import REPOSITORY, Daemon, running

SECONDS = 30
# A model that one test alone asks, so that no count of others comes late among its own.
COUNTED = "counted"
WAYS = ("tcp", "tls", "unix")
PREDICT = "/predictd.v1.PredictionService/Predict"
STREAM = "/predictd.v1.PredictionService/PredictStream"
SERVICE = "predictd.v1.PredictionService"
# What is new, what was seen, and what takes many frames: with the front end in C these go different ways.
ROWS = (1, 1, 1, 3, 50)
WIDTH = 4096
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True)
class Way:
    """To a daemon.

    Attributes:
        daemon: That daemon.
        target: As gRPC names it.
        authority: Who signed for it, or None without TLS.
        socket: Of the unix socket, or None.
    """

    daemon: Daemon
    target: str
    authority: Path | None = None
    socket: Path | None = None

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        assert self.authority is not None
        return grpc.ssl_channel_credentials(self.authority.read_bytes())

    def channel(self) -> grpc.Channel:
        if self.authority is None:
            return grpc.insecure_channel(self.target, OPTIONS)
        return grpc.secure_channel(self.target, self.credentials, OPTIONS)

    def aio_channel(self) -> grpc.aio.Channel:
        if self.authority is None:
            return grpc.aio.insecure_channel(self.target, OPTIONS)
        return grpc.aio.secure_channel(self.target, self.credentials, OPTIONS)

    def url(self, path: str) -> str:
        host = "localhost" if self.socket else self.target
        return f"{'https' if self.authority else 'http'}://{host}{path}"


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    root = tmp_path_factory.mktemp("ways")
    authority = Authority(root / "pki")
    server = authority.sign("server", "DNS:localhost", "IP:127.0.0.1")
    socket = root / "s"
    repository = root / "models"
    repository.mkdir()
    for name in ("echo", COUNTED):
        models.identity(repository / f"{name}.onnx", shape=("batch", WIDTH))
    tls = ("--tls-certificate", server.certificate, "--tls-key", server.key)
    with (
        running(repository, "--unix", socket, folder=root / "plain") as plain,
        running(repository, *tls, folder=root / "encrypted") as encrypted,
    ):
        if os.environ["PREDICTD_FRONTEND"] == "native":
            plain.wait_said("connections: by predictd-native")
        yield {
            "tcp": Way(plain, plain.grpc),
            "tls": Way(encrypted, encrypted.grpc, authority=authority.certificate),
            "unix": Way(plain, f"unix:{socket}", socket=socket),
        }


@pytest.fixture(params=WAYS)
def way(ways: dict[str, Way], request: pytest.FixtureRequest) -> Way:
    return ways[request.param]


def array_of(rows: int) -> Any:
    return np.arange(rows * WIDTH, dtype=np.float32).reshape(-1, WIDTH)


def request_of(rows: int, model: str = "echo") -> pb.PredictRequest:
    array = array_of(rows)
    request = pb.PredictRequest(model=model, id=str(rows))
    request.inputs.add(name="x", dtype=pb.FP32, shape=array.shape, data=array.tobytes())
    return request


def check(answer: pb.PredictResponse, rows: int) -> None:
    (output,) = answer.outputs
    assert (answer.id, output.name, list(output.shape)) == (str(rows), "y", [rows, WIDTH])
    assert output.data == array_of(rows).tobytes()


# grpcio's clients ---------------------------------------------------------------------------------------


def test_the_blocking_client(way: Way) -> None:
    with way.channel() as channel:
        predict = channel.unary_unary(
            PREDICT, pb.PredictRequest.SerializeToString, pb.PredictResponse.FromString
        )
        for rows in ROWS:
            check(predict(request_of(rows), timeout=SECONDS), rows)
        check(predict(request_of(3), timeout=SECONDS, compression=grpc.Compression.Gzip), 3)
        with pytest.raises(grpc.RpcError) as error:
            predict(request_of(1, "nobody"), timeout=SECONDS)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert error.value.details() == "model 'nobody' is not known"
        stream = channel.stream_stream(
            STREAM, pb.PredictRequest.SerializeToString, pb.PredictStreamResponse.FromString
        )
        answers = list(stream(map(request_of, ROWS), timeout=SECONDS))
        for rows, answer in zip(ROWS, answers, strict=True):
            check(answer.response, rows)


def test_the_asyncio_client(way: Way) -> None:
    async def ask() -> None:
        async with way.aio_channel() as channel:
            predict: Any = channel.unary_unary(
                PREDICT, pb.PredictRequest.SerializeToString, pb.PredictResponse.FromString
            )
            many = ROWS * 8
            answers = await asyncio.gather(*(predict(request_of(rows), timeout=SECONDS) for rows in many))
            for rows, answer in zip(many, answers, strict=True):
                check(answer, rows)
            stream: Any = channel.stream_stream(
                STREAM, pb.PredictRequest.SerializeToString, pb.PredictStreamResponse.FromString
            )
            call = stream(timeout=SECONDS)
            for rows in ROWS:
                await call.write(request_of(rows))
                check((await call.read()).response, rows)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK

    asyncio.run(ask())


# Triton's and TensorFlow Serving's ----------------------------------------------------------------------


def test_tritons_clients(ways: dict[str, Way]) -> None:
    """In a process of their own: their messages have the names of ours."""
    urls = [f"{way.target}#{way.authority}" if way.authority else way.target for way in ways.values()]
    script = REPOSITORY / "tests" / "fixtures" / "triton_ways.py"
    done = subprocess.run(
        (sys.executable, script, *urls), stdout=subprocess.PIPE, timeout=3 * SECONDS, check=True
    )
    right = [True] * len(ROWS)
    refusal = ["StatusCode.NOT_FOUND", "model 'nobody' is not known"]
    one = {"ready": True, "infer": right, "stream": right, "refusal": refusal, "aio": right}
    assert dict(zip(ways, json.loads(done.stdout), strict=True)) == dict.fromkeys(ways, one)


def test_tensorflow_servings_messages(way: Way) -> None:
    with way.channel() as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            serving_pb2.PredictRequest.SerializeToString,
            serving_pb2.PredictResponse.FromString,
        )
        for rows in ROWS:
            dimensions = [tensor_pb2.TensorShapeProto.Dim(size=size) for size in (rows, WIDTH)]
            sent = tensor_pb2.TensorProto(
                dtype=tensor_pb2.DT_FLOAT,
                tensor_shape=tensor_pb2.TensorShapeProto(dim=dimensions),
                tensor_content=array_of(rows).tobytes(),
            )
            request = serving_pb2.PredictRequest(
                model_spec=serving_pb2.ModelSpec(name="echo"), inputs={"x": sent}
            )
            answer = predict(request, timeout=SECONDS)
            assert np.array_equal(answer.outputs["y"].float_val, array_of(rows).ravel())


# Reflection, as grpcurl uses it -------------------------------------------------------------------------


class Reflected:
    """What a server says of itself in one stream, asked file by file."""

    def __init__(self, channel: grpc.Channel, version: str) -> None:
        self._asked: list[reflection_pb2.ServerReflectionRequest] = []
        self._stream = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )

    def ask(self, **what: str) -> Any:
        """The answer to one question."""
        (answer,) = self._stream(iter([reflection_pb2.ServerReflectionRequest(**what)]), timeout=SECONDS)
        return answer

    def load(self, pool: DescriptorPool, files: list[bytes], known: set[str]) -> None:
        """Add files, after those that they need."""
        for serialized in files:
            file = FileDescriptorProto.FromString(serialized)
            if file.name in known:
                continue
            known.add(file.name)
            for name in file.dependency:
                if name not in known:
                    needed = self.ask(file_by_filename=name).file_descriptor_response.file_descriptor_proto
                    self.load(pool, list(needed), known)
            pool.Add(file)


def test_reflection_is_enough_to_ask(way: Way) -> None:
    with way.channel() as channel:
        # It tries the newer one first, and takes this status as a word to try the older.
        with pytest.raises(grpc.RpcError) as error:
            Reflected(channel, "v1").ask(list_services="")
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED

        reflected, pool = Reflected(channel, "v1alpha"), DescriptorPool()
        listed = reflected.ask(list_services="").list_services_response.service
        assert SERVICE in {service.name for service in listed}
        found = reflected.ask(file_containing_symbol=SERVICE).file_descriptor_response
        reflected.load(pool, list(found.file_descriptor_proto), set())
        method = pool.FindServiceByName(SERVICE).methods_by_name["Predict"]
        asked = GetMessageClass(method.input_type).FromString(request_of(3).SerializeToString())
        predict = channel.unary_unary(PREDICT, bytes, bytes)
        answer = predict(asked.SerializeToString(), timeout=SECONDS)
        output = cast("Any", GetMessageClass(method.output_type).FromString(answer)).outputs[0]
        assert output.data == array_of(3).tobytes()


# Clients of HTTP/2 that know nothing of gRPC ------------------------------------------------------------


def framed(request: pb.PredictRequest) -> bytes:
    """A message with gRPC's prefix."""
    message = request.SerializeToString()
    return struct.pack("!BI", 0, len(message)) + message


GRPC = ("content-type: application/grpc", "te: trailers")
HEADERS = [word for header in GRPC for word in ("-H", header)]
CURL = shutil.which("curl")
H2LOAD = shutil.which("h2load")


def curl(way: Way, folder: Path, *arguments: str | Path) -> tuple[int, dict[str, str], bytes]:
    """The HTTP status, headers and trailers, and the body."""
    assert CURL is not None
    security: tuple[str | Path, ...] = (
        ("--http2", "--cacert", way.authority) if way.authority else ("--http2-prior-knowledge",)
    )
    socket: tuple[str | Path, ...] = ("--unix-socket", way.socket) if way.socket else ()
    body, head = folder / "body", folder / "head"
    body.unlink(missing_ok=True)
    subprocess.run(
        (
            *(CURL, "--silent", "--show-error", "--max-time", str(SECONDS), "--noproxy", "*"),
            *(*security, *socket, "-D", head, "-o", body, *arguments),
        ),
        check=True,
    )
    first, *lines = head.read_text().replace("\r", "").splitlines()
    version, status, *_ = first.split()
    assert version == "HTTP/2"
    return int(status), dict(line.split(": ", 1) for line in lines if ": " in line), body.read_bytes()


@pytest.mark.skipif(CURL is None, reason="needs curl: apt-get install curl")
def test_curl(way: Way, tmp_path: Path) -> None:
    message = tmp_path / "message"
    for rows in (*ROWS, 3):
        message.write_bytes(framed(request_of(rows)))
        status, said, body = curl(way, tmp_path, *HEADERS, "--data-binary", f"@{message}", way.url(PREDICT))
        assert (status, said["content-type"], said["grpc-status"]) == (200, "application/grpc", "0")
        assert struct.unpack_from("!BI", body) == (0, len(body) - 5)
        check(pb.PredictResponse.FromString(body[5:]), rows)
    message.write_bytes(framed(request_of(1, "nobody")))
    status, said, body = curl(way, tmp_path, *HEADERS, "--data-binary", f"@{message}", way.url(PREDICT))
    assert (status, said["grpc-status"], body) == (200, str(grpc.StatusCode.NOT_FOUND.value[0]), b"")
    assert said["grpc-message"] == "model 'nobody' is not known"


@pytest.mark.skipif(H2LOAD is None, reason="needs h2load: apt-get install nghttp2-client")
def test_h2load(way: Way, tmp_path: Path) -> None:
    assert H2LOAD is not None
    count, body = 400, tmp_path / "message"
    body.write_bytes(framed(request_of(3, COUNTED)))
    url = f"{'https' if way.authority else 'http'}://{way.target}{PREDICT}"
    where = ("--base-uri", f"unix:{way.socket}", way.url(PREDICT)) if way.socket else (url,)
    answered = way.daemon.metric("predictd_requests_total", model=COUNTED)
    done = subprocess.run(
        (H2LOAD, "-n", str(count), "-c", "4", "-m", "4", "-d", body, *HEADERS, *where),
        capture_output=True,
        text=True,
        timeout=3 * SECONDS,
        check=False,
    )
    assert re.search(rf"^requests: .* {count} succeeded", done.stdout, re.MULTILINE), (
        done.stdout + done.stderr
    )
    # It looks at the status of HTTP only.
    way.daemon.wait_metric("predictd_requests_total", answered + count, model=COUNTED, status="OK")
