"""Who gets in: real daemons, real clients, every method that reflection knows."""

from __future__ import annotations

import base64
import json
import queue
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from typing_extensions import override

from predictd.client import (
    NO_RETRIES,
    Client,
    PredictdError,
)
from predictd.engines.api import DType
from predictd.protos.v1 import predictd_pb2 as pb
from predictd.server.access.identity import Role
from predictd.server.access.methods import RULES
from predictd.server.access.tokens import TokenEntry, entry_text, hash_text, new_token
from tests.fixtures.access import ARRAY, SECONDS, client_of, https, names, port_of, repository_of
from tests.fixtures.certificates import Authority, Pair
from tests.fixtures.daemon import COMMAND, Daemon, running

REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
TRITON = Path(__file__).parents[1] / "fixtures/triton_access.py"


class Tokens:
    """A file of tokens, and the tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens: dict[str, str] = {}
        path.touch(0o600)

    def add(self, name: str, *roles: Role, **more: Any) -> str:
        token = self.tokens[name] = new_token()
        entry = TokenEntry(name=name, hash=hash_text(token), roles=roles, **more)
        with self.path.open("a") as file:
            file.write(entry_text(entry))
        return token


UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


def is_refused(outcome: object, code: grpc.StatusCode) -> bool:
    return isinstance(outcome, PredictdError) and outcome.code is code


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


def channel_to(daemon: Daemon, authority: Authority, pair: Pair | None = None) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        None if pair is None else pair.key.read_bytes(),
        None if pair is None else pair.certificate.read_bytes(),
    )
    options = (("grpc.use_local_subchannel_pool", 1),)
    return grpc.secure_channel(f"localhost:{port_of(daemon.grpc)}", credentials, options)


class Showing(grpc.StreamStreamClientInterceptor):
    """Shows a token with each stream."""

    def __init__(self, token: str) -> None:
        self._token = token

    @override
    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        shown = client_call_details._replace(metadata=bearer(self._token))
        return continuation(shown, request_iterator)


def everything(channel: grpc.Channel, token: str) -> dict[str, Any]:
    """The methods that reflection describes, by path."""
    database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, Showing(token)))
    pool = DescriptorPool(database)
    services = [pool.FindServiceByName(name) for name in database.get_services()]
    return {
        f"/{service.full_name}/{method.name}": method for service in services for method in service.methods
    }


class Stream:
    """A stream of requests that stays open."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._requests: queue.Queue[pb.PredictRequest | None] = queue.Queue()
        self._answers = channel.stream_stream(
            "/predictd.v1.PredictionService/PredictStream",
            request_serializer=pb.PredictRequest.SerializeToString,
            response_deserializer=pb.PredictStreamResponse.FromString,
        )(iter(self._requests.get, None), timeout=SECONDS, metadata=bearer(token))

    def ask(self, model: str) -> int:
        """The status of a request."""
        request = pb.PredictRequest(model=model)
        request.inputs.add(name="x", dtype=DType.FP32.value, shape=ARRAY.shape, data=ARRAY.tobytes())
        self._requests.put(request)
        return int(next(self._answers).error.code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        assert list(self._answers) == []


def status_of(channel: Any, path: str, method: Any, token: str) -> grpc.StatusCode:
    """What becomes of a call with an empty request: its status, or that of its first answer."""
    metadata = bearer(token)
    if method.client_streaming:
        call = channel.stream_stream(path)(iter([b""]), timeout=SECONDS, metadata=metadata)
    else:
        call = channel.unary_stream(path)(b"", timeout=SECONDS, metadata=metadata)
    try:
        next(iter(call))
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    call.cancel()
    return grpc.StatusCode.OK


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*COMMAND, *words), capture_output=True, text=True, check=False, timeout=60)


def test_every_method_lets_in_whom_its_rule_says_with_the_models_that_are_theirs(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    server = authority.sign("server", "DNS:localhost", "IP:127.0.0.1")
    tokens = Tokens(tmp_path / "tokens.toml")
    for role in Role:
        tokens.add(role, role)
    everyone = tokens.add("everyone", *Role)
    limited = tokens.add("limited", Role.INFER, Role.OBSERVE, Role.CONTROL, models=("ec*",))
    expired = tokens.add("expired", *Role, expires=datetime.now(UTC) - timedelta(hours=1))
    with running(
        repository_of(tmp_path / "models"),
        *("--tls-certificate", server.certificate, "--tls-key", server.key, "--tokens", tokens.path),
        *("--frontends", "2", "--request-log", "1", "--unix", tmp_path / "socket"),
        folder=tmp_path / "run",
        grpc="0.0.0.0:0",
        http="0.0.0.0:0",
    ) as daemon:
        with channel_to(daemon, authority) as channel:
            methods = everything(channel, everyone)
            assert set(methods) == set(RULES)
            for path, method in methods.items():
                rule = RULES[path]
                for token in ("", "predictd_nobody", expired):
                    code = status_of(channel, path, method, token)
                    expected = (
                        (code not in REFUSED) if rule.public else code is grpc.StatusCode.UNAUTHENTICATED
                    )
                    assert expected, (path, token, code)
                for role in Role:
                    code = status_of(channel, path, method, tokens.tokens[role])
                    let_in = rule.public or role in rule.roles
                    assert (code not in REFUSED) is let_in, (path, role, code)
                    assert let_in or code is grpc.StatusCode.PERMISSION_DENIED
            check_models_are_their_own(daemon, authority, channel, limited)
        # The unix socket is no way around.
        with (
            Client(f"unix://{tmp_path}/socket", retries=NO_RETRIES) as stranger,
            pytest.raises(PredictdError) as caught,
        ):
            stranger.models()
        assert is_refused(caught.value, UNAUTHENTICATED)
        check_http(daemon, authority, tokens)
        check_commands(daemon, authority, tokens, tmp_path)
        check_tokens_come_and_go(daemon, authority, tokens)
        daemon.wait_said('"caller": "limited"')
        printed = daemon.output()
        assert not any(token in printed for token in tokens.tokens.values())
        token = tokens.tokens["later"]
        context = ssl.create_default_context(cafile=authority.certificate)
        text = https(daemon, context, "/metrics", Authorization=f"Bearer {token}")[1]
        for reason in ("no_credentials", "invalid_credentials", "role", "model"):
            assert f'predictd_refused_calls_total{{protocol="grpc",reason="{reason}"}} 0' not in text
        assert "predictd_tls_certificate_expiry_timestamp_seconds 1." in text


def check_models_are_their_own(
    daemon: Daemon, authority: Authority, channel: grpc.Channel, token: str
) -> None:
    with client_of(daemon, authority, token) as client:
        assert client.predict("echo", {"x": ARRAY}).outputs["y"].tolist() == ARRAY.tolist()
        assert [model.name for model in client.models()] == ["echo"]
        refusals = []
        for name in ("other", "missing"):
            for call in (
                lambda name=name: client.predict(name, {"x": ARRAY}),
                lambda name=name: client.model(name),
                lambda name=name: client.load_model(name),
                lambda name=name: client.unload_model(name),
                lambda name=name: client.set_label(name, "a", 1),
            ):
                with pytest.raises(PredictdError) as caught:
                    call()
                assert is_refused(caught.value, DENIED)
                refusals.append(str(caught.value).replace(name, "NAME"))
        # Whether there is such a model cannot be told from the answer.
        assert len(set(refusals)) == 1
        client.load_model("echo")
    with Stream(channel, token) as stream:
        assert [stream.ask(name) for name in ("echo", "other", "missing", "echo")] == [0, 7, 7, 0]
    codes = [
        status_of(channel, path, method, token)
        for path, method in everything(channel, token).items()
        if path.endswith(("/Reload", "/ModelStatistics", "/ListModels"))
    ]
    assert sorted(codes, key=str) == [grpc.StatusCode.OK] * 2 + [DENIED]
    for name, metadata, known in (
        ("", (), True),
        ("predictd.v1.PredictionService", (), True),
        ("echo", (), False),
        ("echo", bearer(token), True),
        ("other", bearer(token), False),
    ):
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        )
        request = health_pb2.HealthCheckRequest(service=name)
        if known:
            check(request, timeout=SECONDS, metadata=metadata)
            continue
        with pytest.raises(grpc.RpcError) as refused:
            check(request, timeout=SECONDS, metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    triton = subprocess.run(
        (sys.executable, str(TRITON), f"localhost:{port_of(daemon.grpc)}", authority.certificate, token),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    answer = str(ARRAY.tolist())
    denied = "StatusCode.PERMISSION_DENIED"
    assert json.loads(triton.stdout) == {
        "live": True,
        "stranger": "StatusCode.UNAUTHENTICATED",
        "echo": answer,
        "other": denied,
        "missing": denied,
        "index": ["echo"],
        "ready": True,
        "stream": [ARRAY.tolist(), "this caller may not use model 'other'", ARRAY.tolist()],
    }


def check_http(daemon: Daemon, authority: Authority, tokens: Tokens) -> None:
    context = ssl.create_default_context(cafile=authority.certificate)
    observer, limited = tokens.tokens[Role.OBSERVE], tokens.tokens["limited"]
    basic = base64.b64encode(f"anybody:{observer}".encode()).decode()
    for path in ("/metrics", "/status.json", "/"):
        assert https(daemon, context, path)[0] == 401
        assert https(daemon, context, path, Authorization="Bearer x")[0] == 401
        for token in (limited, tokens.tokens[Role.INFER]):
            assert https(daemon, context, path, Authorization=f"Bearer {token}")[0] == 403
        assert https(daemon, context, path, Authorization=f"Bearer {observer}")[0] == 200
        assert https(daemon, context, path, Authorization=f"Basic {basic}")[0] == 200
    assert https(daemon, context, "/healthz") == (200, "ok\n")
    assert https(daemon, context, "/readyz") == (200, "ready\n")
    with pytest.raises(OSError, match=r"(?i)reset|remote|closed|ssl|status line"):
        urllib.request.urlopen(f"http://localhost:{port_of(daemon.http)}/healthz", timeout=SECONDS)


def check_commands(daemon: Daemon, authority: Authority, tokens: Tokens, folder: Path) -> None:
    token_file = folder / "token"
    token_file.write_text(tokens.tokens["everyone"] + "\n")
    shown = ("--tls-ca", str(authority.certificate), "--token-file", str(token_file))
    grpc_address = ("--grpc", f"localhost:{port_of(daemon.grpc)}")
    listed = command("models", *grpc_address, *shown, "--json")
    assert [model["name"] for model in json.loads(listed.stdout)] == ["echo", "other"], listed
    assert command("health", "echo", *grpc_address, *shown).stdout == "SERVING\n"
    assert "echo" in command("top", "--once", "--http", f"localhost:{port_of(daemon.http)}", *shown).stdout
    stranger = command("models", *grpc_address, *shown[:2])
    assert (stranger.returncode, "a token is needed" in stranger.stderr) == (1, True)
    stranger = command("top", "--once", "--http", f"localhost:{port_of(daemon.http)}", *shown[:2])
    assert (stranger.returncode, "--token-file" in stranger.stderr) == (1, True)


def check_tokens_come_and_go(daemon: Daemon, authority: Authority, tokens: Tokens) -> None:
    """A token that the command makes is good while the daemon runs, until it is taken out, on open streams too."""
    before = tokens.path.read_bytes()
    made = command(
        "token",
        "new",
        "--name",
        "later",
        "--role",
        "infer",
        "--role",
        "observe",
        "--tokens",
        str(tokens.path),
    )
    later = tokens.tokens["later"] = made.stdout.strip()
    with ExitStack() as stack:
        client = stack.enter_context(client_of(daemon, authority, later))

        def let_in() -> bool:
            return names(client) is not None

        daemon.wait_until(let_in, SECONDS, "taking the new token")
        stream = stack.enter_context(Stream(stack.enter_context(channel_to(daemon, authority)), later))
        assert stream.ask("echo") == 0
        # What cannot be read changes nothing.
        tokens.path.write_bytes(before + b"[[token]]\nname = 1\n")
        daemon.wait_until(lambda: "what is new cannot be taken" in daemon.output(), SECONDS, "complaining")
        assert let_in()
        tokens.path.write_bytes(before)
        daemon.wait_until(lambda: not let_in(), SECONDS, "forgetting the token")
        assert stream.ask("echo") == UNAUTHENTICATED.value[0]
    tokens.path.write_bytes(before)
    tokens.add("later", *Role)
    daemon.signal(signal.SIGHUP)
    with client_of(daemon, authority, tokens.tokens["later"]) as client:
        daemon.wait_until(lambda: names(client), SECONDS, "taking the last token")
