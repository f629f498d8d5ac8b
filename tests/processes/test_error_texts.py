"""Whatever clients send, no answer says where anything lies on this machine, or what the code is called."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import numpy as np
import pytest

from predictd.client import NO_RETRIES, Client, PredictdError
from predictd.protos.oip import grpc_service_pb2
from predictd.protos.tfs import serving_pb2
from predictd.protos.v1 import control_pb2, predictd_pb2, routing_pb2
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.processes import FAULTY, versioned

NASTY = (
    "",
    "../../../etc/passwd",
    "/etc/passwd",
    'm\n{"level": "error"}',
    "m\x00.onnx",
    "%2e%2e%2f",
    "gpj.\u202eonnx",
    "x" * 5000,
    "broken",
    "good",
    "file:../../x",
)
INTERNAL = re.compile(
    rb"Traceback|predictd\.(?:server|engines)|site-packages|\.py\b|/home/|/usr/|/root/|/tmp/|memfd"
)
FILES = (grpc_service_pb2, serving_pb2, control_pb2, predictd_pb2, routing_pb2)
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def field(number: int, value: bytes) -> bytes:
    """A field of a message: text, bytes, or a message."""
    size, low = bytearray(), len(value)
    while low >= 0x80:
        size.append(low & 0x7F | 0x80)
        low >>= 7
    return bytes([number << 3 | 2, *size, low]) + value


def messages(name: str) -> list[bytes]:
    """Messages of which most RPCs take the name for a model's, a version, a label, or what is in one of these."""
    text = name.encode()
    one = field(1, text)
    return [one, field(2, text), one + field(2, text), field(1, one), one + field(3, text), text]


def answers(daemon: Daemon) -> dict[tuple[str, bytes], bytes]:
    """What each RPC answers or refuses each message with."""
    found: dict[tuple[str, bytes], bytes] = {}
    with grpc.insecure_channel(daemon.grpc) as channel:
        for method in METHODS:
            call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
            for message in {b"", b"\xff", *(message for name in NASTY for message in messages(name))}:
                running_call = call(iter([message]), timeout=30)
                try:
                    found[method, message] = b"".join(running_call)
                except grpc.RpcError as error:
                    found[method, message] = f"{error.code().name} {error.details()}".encode()
    return found


def repository(root: Path) -> Path:
    """Models that are served, and models that cannot be in several ways."""
    versioned(root, "good", {1: 2.0})
    (root / "broken" / "1").mkdir(parents=True)
    models.unknown_operator(root / "broken" / "1" / "model.onnx")
    (root / "torn" / "1").mkdir(parents=True)
    (root / "torn" / "1" / "model.onnx").write_bytes(b"not a model")
    (root / "faulty").mkdir()
    (root / "faulty" / "model.onnx").write_bytes(b"x")
    (root / "faulty" / "model.toml").write_text(f'engine = "{FAULTY}"\n')
    models.gather_out_of_bounds(root / "gather.onnx")
    return root


def test_no_answer_names_what_is_inside(tmp_path: Path) -> None:
    with running(repository(tmp_path / "models"), folder=tmp_path / "run") as daemon:
        assert_answers_keep_it_to_themselves(daemon)
        assert_failures_and_pages_do(daemon)
        # Nobody writes a line of the log of their own.
        assert all(line.startswith('{"time"') for line in daemon.lines())


def assert_answers_keep_it_to_themselves(daemon: Daemon) -> None:
    found = answers(daemon)
    assert len(found) > 500
    for (method, message), answer in found.items():
        assert not answer.startswith((b"UNKNOWN", b"DEADLINE_EXCEEDED")), (method, message[:80], answer)
        # Of what a client sends it may be told again.
        own = re.findall(rb"[^\x00-\x1f'\"]+", message)
        rest = answer
        for part in sorted(own, key=len, reverse=True):
            rest = rest.replace(part, b"") if len(part) > 2 else rest
        assert not INTERNAL.search(rest), (method, message[:80], answer[:400])


def assert_failures_and_pages_do(daemon: Daemon) -> None:
    said = [daemon.get(page)[1] for page in ("/healthz", "/readyz", "/metrics", "/nowhere", "/../etc/passwd")]
    with Client(daemon.grpc, retries=NO_RETRIES) as client:
        said += [str(model) for model in client.models()]
        for name in ("broken", "torn", "good", "nobody"):
            try:
                client.load_model(name)
            except PredictdError as error:
                said.append(str(error))
        with pytest.raises(PredictdError, match="indices element out of data bounds") as caught:
            client.predict("gather", {"x": np.array([7])})
        said.append(str(caught.value))
    assert any("broken/1/model.onnx" in text for text in said)
    assert [text for text in said if INTERNAL.search(text.encode())] == []
