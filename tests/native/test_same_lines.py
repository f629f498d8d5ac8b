"""Daemons with tokens, certificates, a limit for each client and a log of requests: both front ends do the same."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import grpc

from predictd.engines.api import DType
from predictd.protos.oip import grpc_service_pb2 as oip
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.access.identity import Role
from predictd.server.access.tokens import TokenEntry, entry_text, hash_text
from predictd.server.observe.deltas import NATIVE_WAYS
from tests.fixtures import models
from tests.fixtures.certificates import Authority, Pair
from tests.fixtures.daemon import Daemon, running

SECONDS = 30.0
ROUNDS = 6
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
VALUES = bytes(16)
# What no two daemons have in common, and what tells of times.
VARYING = {"batch_rows", "time", "pid", "client", "duration_seconds", "queue_seconds", "compute_seconds"}
CERTIFICATE = '[[certificate]]\nname = "batch"\nsan = "URI"\nroles = ["infer"]\nmodels = ["echo"]\n'


def tokens_of(path: Path) -> None:
    entries = {
        "open": TokenEntry(name="open", hash=hash_text("t-open"), roles=(Role.INFER, Role.OBSERVE)),
        "own": TokenEntry(name="own", hash=hash_text("t-own"), roles=(Role.INFER,), models=("ec*",)),
        "reader": TokenEntry(name="reader", hash=hash_text("t-reader"), roles=(Role.OBSERVE,)),
    }
    path.write_text(
        "".join(map(entry_text, entries.values())) + CERTIFICATE.replace("URI", "spiffe://a/batch")
    )


def predict(**fields: Any) -> bytes:
    request = v1.PredictRequest(**({"model": "echo"} | fields))
    request.inputs.add(name="x", dtype=DType.FP32.value, shape=(1, 4), data=VALUES)
    return request.SerializeToString()


def infer(**fields: Any) -> bytes:
    request = oip.ModelInferRequest(**({"model_name": "echo"} | fields))
    request.inputs.add(name="x", datatype="FP32", shape=(1, 4))
    request.raw_input_contents.append(VALUES)
    return request.SerializeToString()


class Caller:
    """Somebody who asks, and keeps what was said."""

    def __init__(self, daemon: Daemon, authority: Authority, pair: Pair, token: str = "") -> None:
        port = daemon.grpc.rpartition(":")[2]
        credentials = grpc.ssl_channel_credentials(
            authority.certificate.read_bytes(), pair.key.read_bytes(), pair.certificate.read_bytes()
        )
        self._channel = grpc.secure_channel(
            f"localhost:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)]
        )
        shown = (("authorization", f"Bearer {token}"),) if token else ()
        trace = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")
        self._about: Any = {"metadata": (*shown, trace, ("x-request-id", "proxy-7")), "timeout": SECONDS}

    def one(self, path: str, request: bytes) -> tuple[int, str]:
        try:
            call: Any = self._channel.unary_unary(path)
            call(request, **self._about)
        except grpc.RpcError as error:
            refused: Any = error
            return refused.code().value[0], refused.details()
        return 0, ""

    def many(self, requests: list[bytes]) -> tuple[list[tuple[int, str]], int]:
        path = "/predictd.v1.PredictionService/PredictStream"
        call: Any = self._channel.stream_stream(path)
        opened = call(iter(requests), **self._about)
        answers: list[tuple[int, str]] = []
        try:
            parsed = map(v1.PredictStreamResponse.FromString, opened)
            answers.extend((answer.error.code, answer.error.message) for answer in parsed)
        except grpc.RpcError:
            pass
        return sorted(answers), opened.code().value[0]

    def close(self) -> None:
        self._channel.close()


def everything(daemon: Daemon, authority: Authority, pairs: dict[str, Pair]) -> list[object]:
    """What is said to callers of all kinds."""
    said: list[object] = []
    for pair, token in (
        ("nobody", ""),
        ("nobody", "t-wrong"),
        ("nobody", "t-reader"),
        ("nobody", "t-own"),
        ("nobody", "t-open"),
        ("batch", ""),
        ("batch", "t-reader"),
    ):
        caller = Caller(daemon, authority, pairs[pair], token)
        for number in range(ROUNDS):
            said += [
                (pair, token, caller.one("/predictd.v1.PredictionService/Predict", predict(id=f"p{number}"))),
                (
                    pair,
                    token,
                    caller.one("/inference.GRPCInferenceService/ModelInfer", infer(id=f"i{number}")),
                ),
            ]
        for named in (
            predict(model="other"),
            predict(model="missing"),
            predict(version=1),
            predict(version=7),
        ):
            said.append((pair, token, caller.one("/predictd.v1.PredictionService/Predict", named)))
        stream = [predict(id=str(number)) for number in range(ROUNDS)] + [predict(model="other")]
        said.append((pair, token, caller.many(stream)))
        caller.close()
    return said


def first_said(daemon: Daemon, authority: Authority, pair: Pair, times: int) -> list[object]:
    """What is said to the first requests: to so many, or with 0 to as many as it takes until C answers one.

    Until it has memory, which the workers have to map, all of them are Python's.
    """
    caller = Caller(daemon, authority, pair, "t-open")
    said: list[object] = []

    def enough() -> bool:
        outcome = caller.one("/predictd.v1.PredictionService/Predict", predict(id=f"f{len(said)}"))
        said.append(("first", outcome))
        if times:
            return len(said) == times
        ways = counted(metrics(daemon, authority, pair), "predictd_native_requests_total")
        return ways.get('{way="hot"}', 0) > 0

    daemon.wait_until(enough, SECONDS, "answering in C")
    caller.close()
    return said


def counts_of(daemon: Daemon, authority: Authority, pair: Pair, said: list[object]) -> list[dict[str, float]]:
    """Requests and refused calls, once all are counted that something was said to; then which way they went."""
    names = ("requests", "refused_calls", "native_requests")
    found: list[dict[str, float]] = []

    def counted_all() -> bool:
        text = metrics(daemon, authority, pair)
        found[:] = [counted(text, f"predictd_{name}_total") for name in names]
        return sum(found[0].values()) + sum(found[1].values()) == sum(map(answers_in, said))

    daemon.wait_until(counted_all, SECONDS, "counting all")
    return found


def answers_in(said: Any) -> int:
    """How many requests and refused calls are told of: a stream that is not let in counts once."""
    outcome = said[-1]
    return max(len(outcome[0]), 1) if isinstance(outcome[0], list) else 1


def lines(daemon: Daemon) -> list[str]:
    found = [json.loads(line) for line in daemon.output().splitlines() if '"message": "request"' in line]
    return sorted(
        json.dumps({name: value for name, value in line.items() if name not in VARYING}, sort_keys=True)
        for line in found
    )


def metrics(daemon: Daemon, authority: Authority, pair: Pair) -> str:
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(pair.certificate, pair.key)
    url = f"https://localhost:{daemon.http.rpartition(':')[2]}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer t-open"})
    with urllib.request.urlopen(request, timeout=SECONDS, context=context) as answer:
        return str(answer.read().decode())


def counted(text: str, name: str) -> dict[str, float]:
    """The samples of a metric by their labels."""
    samples = (line.rpartition(" ") for line in text.splitlines() if line.startswith(name + "{"))
    return {labels.removeprefix(name): float(value) for labels, _, value in samples}


def test_both_front_ends_let_in_the_same_callers_and_log_the_same_lines(tmp_path: Path) -> None:
    for name in ("echo", "other"):
        version = tmp_path / "models" / name / "1"
        version.mkdir(parents=True)
        models.identity(version / "model.onnx")
    authority = Authority(tmp_path / "pki")
    server = authority.sign("server", "DNS:localhost", "IP:127.0.0.1")
    pairs = {"batch": authority.sign("batch", "URI:spiffe://a/batch"), "nobody": authority.sign("nobody")}
    tokens_of(tmp_path / "tokens.toml")
    said: list[list[object]] = []
    logged, ended, ways, first = [], [], [], 0
    for frontend in ("native", "grpcio"):
        with running(
            tmp_path / "models",
            *("--tls-certificate", server.certificate, "--tls-key", server.key),
            *("--tls-client-ca", authority.certificate, "--tokens", tmp_path / "tokens.toml"),
            *("--request-log", "1", "--max-concurrent-per-client", "64", "--frontend", frontend),
            folder=tmp_path / frontend,
            grpc="0.0.0.0:0",
            http="0.0.0.0:0",
        ) as daemon:
            began = first_said(daemon, authority, pairs["nobody"], first)
            first = len(began)
            said.append(began + everything(daemon, authority, pairs))
            *counts, went = counts_of(daemon, authority, pairs["nobody"], said[-1])
            ended.append(counts)
            ways.append(went)
        logged.append(lines(daemon))
    assert said[0] == said[1]
    assert ended[0] == ended[1]
    assert logged[0] == logged[1]
    assert len(logged[0]) == sum(ended[0][0].values())
    callers = {json.loads(line).get("caller") for line in logged[0]}
    assert callers == {"own", "open", "batch"}
    # Three callers, of whom the first requests taught the loop what it needs.
    assert set(ways[0]) == {f'{{way="{way}"}}' for way in NATIVE_WAYS}
    assert ways[0]['{way="hot"}'] > 3 * (2 * ROUNDS - 4) + 3 * (ROUNDS - 2)
    assert ways[0]['{way="caller"}'] > 0
