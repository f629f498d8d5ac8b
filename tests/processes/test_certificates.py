"""Certificates: of the daemon, renewed under load, and of clients, who they say who they are."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import grpc
import pytest

from predictd.client import PredictdError
from tests.fixtures.access import ARRAY, SECONDS, client_of, https, names, port_of, repository_of
from tests.fixtures.certificates import Authority, Pair
from tests.fixtures.daemon import Daemon, running


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_a_certificate_is_renewed_under_load_and_those_of_clients_say_who_they_are(
    rounds: int, tmp_path: Path
) -> None:
    authority, stranger = Authority(tmp_path / "pki"), Authority(tmp_path / "strangers", "strangers")
    first, second = (authority.sign("server", "DNS:localhost", at=name) for name in ("first", "second"))
    batch = authority.sign("batch", "DNS:batch.example", "URI:spiffe://example/batch")
    nameless = authority.sign("watcher")
    unlisted = authority.sign("unlisted", "DNS:unlisted.example")
    false = stranger.sign("batch", "URI:spiffe://example/batch")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        '[[certificate]]\nname = "batch"\nsan = "spiffe://example/batch"\nroles = ["infer"]\nmodels = ["echo"]\n'
        '[[certificate]]\nname = "watcher"\ncommon_name = "watcher"\nroles = ["observe"]\n'
    )
    # As Kubernetes lays out what it mounts: a link that is moved in one step.
    folders = {name: tmp_path / name for name in ("1", "2", "3")}
    for name, certificate, key in (("1", first, first), ("2", second, second), ("3", first, second)):
        folders[name].mkdir()
        shutil.copy(certificate.certificate, folders[name] / "tls.crt")
        shutil.copy(key.key, folders[name] / "tls.key")
    mounted = tmp_path / "mounted"
    mounted.symlink_to(folders["1"])

    def mount(name: str) -> None:
        link = tmp_path / "link"
        link.symlink_to(folders[name])
        link.replace(mounted)

    with running(
        repository_of(tmp_path / "models"),
        *("--tls-certificate", mounted / "tls.crt", "--tls-key", mounted / "tls.key", "--frontends", "2"),
        *("--tls-client-ca", authority.certificate, "--tokens", tokens, "--max-connection-age", "300ms"),
        folder=tmp_path / "run",
        grpc="0.0.0.0:0",
        http="0.0.0.0:0",
    ) as daemon:
        check_clients(daemon, authority, {"batch": batch, "watcher": nameless}, (unlisted, None, false))
        with Load(daemon, authority, batch) as load:
            for done in range(rounds):
                assert shown_by(daemon, authority, batch) == pem(first)
                mount("2")
                daemon.wait_until(
                    lambda: shown_by(daemon, authority, batch) == pem(second), SECONDS, "renewing"
                )
                load.more()
                # A key that is not that of its certificate changes nothing.
                mount("3")
                complained = re.compile(f"(?s)(?:the key is not that of.*){{{done + 1}}}").search
                daemon.wait_until(lambda: complained(daemon.output()), SECONDS, "complaining")  # noqa: B023 - called now
                load.more()
                assert shown_by(daemon, authority, batch) == pem(second)
                mount("1")
                daemon.wait_until(
                    lambda: shown_by(daemon, authority, batch) == pem(first), SECONDS, "going back"
                )
                load.more()
        # A front end that is started anew has it, too.
        first_ones = daemon.pids("front ends")
        for pid in first_ones:
            os.kill(pid, signal.SIGKILL)
        daemon.wait_until(
            lambda: not set(first_ones).intersection(daemon.pids("front ends")), SECONDS, "dead"
        )
        daemon.wait_until(
            lambda: reached(daemon, authority, batch) == pem(first), SECONDS, "showing it again"
        )
        context = ssl.create_default_context(cafile=authority.certificate)
        context.load_cert_chain(nameless.certificate, nameless.key)
        assert https_certificate(daemon, context) == pem(first)
        stranger_context = ssl.create_default_context(cafile=authority.certificate)
        stranger_context.load_cert_chain(false.certificate, false.key)
        with pytest.raises(OSError, match=r"(?i)alert|reset|eof|closed"):
            https(daemon, stranger_context, "/metrics")
        # Only who shows the key has it.
        opened = {
            role: sum("predictd-credentials" in link for pid in daemon.pids(role) for link in links_of(pid))
            for role in ("supervisor", "front ends", "workers")
        }
        assert opened == {"supervisor": 0, "front ends": 0, "workers": 0}
        text = https(daemon, context, "/metrics")[1]
        assert f'predictd_credentials_reload_failures_total{{what="certificate"}} {rounds}' in text
        assert 'predictd_credentials_reload_failures_total{what="tokens"} 0' in text


def check_clients(
    daemon: Daemon, authority: Authority, known: dict[str, Pair], unknown: tuple[Pair | None, ...]
) -> None:
    with client_of(daemon, authority, pair=known["batch"]) as client:
        client.predict("echo", {"x": ARRAY})
        with pytest.raises(PredictdError, match="may not use model 'other'"):
            client.predict("other", {"x": ARRAY})
        with pytest.raises(PredictdError, match="has not the role control"):
            client.load_model("echo")
    with client_of(daemon, authority, pair=known["watcher"]) as client:
        assert names(client) == ["echo", "other"]
        with pytest.raises(PredictdError, match="has not the role infer"):
            client.predict("echo", {"x": ARRAY})
    unlisted, none, false = unknown
    with client_of(daemon, authority, pair=unlisted) as client:
        assert names(client) is None
    for pair in (none, false):
        with client_of(daemon, authority, pair=pair) as client, pytest.raises(PredictdError) as caught:
            client.models(deadline=2)
        # There is no connection, so nothing that the daemon could have said.
        assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    context = ssl.create_default_context(cafile=authority.certificate)
    assert https(daemon, context, "/healthz")[0] == 200
    assert https(daemon, context, "/metrics")[0] == 401
    context.load_cert_chain(known["batch"].certificate, known["batch"].key)
    assert https(daemon, context, "/metrics")[0] == 403


class Load:
    """Callers that go on, and whose every call is answered."""

    def __init__(self, daemon: Daemon, authority: Authority, pair: Pair) -> None:
        self._client = client_of(daemon, authority, pair=pair)
        self._stop = threading.Event()
        self._answered = threading.Condition()
        self._answers = 0
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(3)]

    def _call(self) -> None:
        while not self._stop.is_set() and not self._failures:
            try:
                self._client.predict("echo", {"x": ARRAY})
            except BaseException as error:  # noqa: BLE001 - the test fails with it
                self._failures.append(error)
            with self._answered:
                self._answers += 1
                self._answered.notify_all()

    def more(self) -> None:
        """Wait until a good many more calls are answered."""
        with self._answered:
            before = self._answers
            assert self._answered.wait_for(lambda: self._failures or self._answers > before + 200, SECONDS)
        assert self._failures == []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
        assert self._failures == []


def shown_by(daemon: Daemon, authority: Authority, pair: Pair) -> bytes:
    """The certificate that a new connection to gRPC is shown. It has HTTP/2, and TLS that is not old."""
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    with connected(context, daemon.grpc) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
        return connection.getpeercert(binary_form=True) or b""


def reached(daemon: Daemon, authority: Authority, pair: Pair) -> bytes | None:
    """What `shown_by` says, None while nobody answers."""
    try:
        return shown_by(daemon, authority, pair)
    except ConnectionError:
        return None


def https_certificate(daemon: Daemon, context: ssl.SSLContext) -> bytes:
    with connected(context, daemon.http) as connection:
        return connection.getpeercert(binary_form=True) or b""


@contextmanager
def connected(context: ssl.SSLContext, address: str) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("localhost", int(port_of(address))), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def links_of(pid: int) -> list[str]:
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]


def pem(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
