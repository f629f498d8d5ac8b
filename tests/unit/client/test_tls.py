"""Encrypted connections: what fits, what does not and in which words, and certificates that are replaced."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from predictd.client import NO_RETRIES, Client, Prediction, Tls, TlsError, UnavailableError, tls
from tests.fixtures.authority import make_authority, make_certificate
from tests.fixtures.prediction_service import FakeService, in_order, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = {"x": [1]}


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for authority in ("ours", "theirs"):
        make_authority(folder, authority)
    make_certificate(folder, "server", "ours", "IP:127.0.0.1")
    make_certificate(folder, "named", "ours", "DNS:model.example")
    make_certificate(folder, "expired", "ours", "IP:127.0.0.1", days=-1)
    make_certificate(folder, "client", "ours", "DNS:client")
    make_certificate(folder, "other", "ours", "DNS:client")
    make_certificate(folder, "stranger", "theirs", "DNS:stranger")
    return folder


def server(folder: Path, name: str = "server", *, asks: bool = False) -> grpc.ServerCredentials:
    key, chain = ((folder / f"{name}.{end}").read_bytes() for end in ("key", "pem"))
    roots = (folder / "ours.pem").read_bytes() if asks else None
    return grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=asks)


def client_of(folder: Path, name: str | None = None, roots: str = "ours", **more: Any) -> Tls:
    chain, key = (None, None) if name is None else (folder / f"{name}.pem", folder / f"{name}.key")
    return Tls(root_certificates=folder / f"{roots}.pem", certificate_chain=chain, private_key=key, **more)


def test_connections_are_encrypted_and_both_sides_checked(make_client: Any, folder: Path) -> None:
    in_files = client_of(folder, "client", server_name="model.example")
    in_memory = Tls(
        root_certificates=(folder / "ours.pem").read_bytes(),
        certificate_chain=(folder / "client.pem").read_bytes(),
        private_key=(folder / "client.key").read_bytes(),
        server_name="model.example",
    )
    with serving(FakeService(stream=in_order), credentials=server(folder, "named", asks=True)) as target:
        for given in (in_files, in_memory):
            with make_client(target, tls=given) as client:
                assert client.predict("echo", ONE).outputs["x"] == [1]
                (answer,) = client.predict_many("echo", [ONE])
                assert answer.outputs["x"] == [1]
        for wrong in (client_of(folder, server_name="model.example"), None):
            with (
                make_client(target, tls=wrong) as client,
                pytest.raises(UnavailableError, match="it may ask for TLS, or for a client certificate"),
            ):
                client.predict("echo", ONE)


@pytest.mark.parametrize(
    ("name", "roots", "words"),
    [
        ("server", "theirs", "is not signed by any of root_certificates"),
        ("named", "ours", r"is of another name than the target's: Tls\(server_name=…\)"),
        ("expired", "ours", "has expired"),
        (None, "ours", "the server does not speak TLS"),
    ],
)
def test_what_does_not_fit_is_said_at_once(
    make_client: Any, folder: Path, name: str | None, roots: str, words: str
) -> None:
    credentials = None if name is None else server(folder, name)
    with (
        serving(FakeService(stream=in_order), credentials=credentials) as target,
        make_client(target, tls=client_of(folder, roots=roots)) as client,
    ):
        with pytest.raises(TlsError, match=words) as caught:
            client.predict("echo", ONE)
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        (answer,) = client.predict_many("echo", [ONE])
        assert isinstance(answer, TlsError)


def test_a_client_whose_certificate_is_not_trusted_stays_out(make_client: Any, folder: Path) -> None:
    with (
        serving(FakeService(), credentials=server(folder, asks=True)) as target,
        make_client(target, tls=client_of(folder, "stranger")) as client,
        pytest.raises(UnavailableError, match="certificate"),
    ):
        client.predict("echo", ONE)


@contextmanager
def asking_late(folder: Path) -> Iterator[str]:
    """A server of TLS 1.3 as OpenSSL makes it: for the client the handshake is over when it refuses the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "ours.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        # Until the listener is closed.
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ssl.SSLError):
                    context.wrap_socket(connection, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize("name", [None, "stranger"])
def test_a_refusal_after_the_handshake_is_explained(make_client: Any, folder: Path, name: str | None) -> None:
    with (
        asking_late(folder) as target,
        make_client(target, tls=client_of(folder, name), retries=NO_RETRIES) as client,
        pytest.raises(UnavailableError, match="it may ask for TLS, or for a client certificate it trusts"),
    ):
        client.predict("echo", ONE)


def test_certificates_that_are_replaced_are_used_without_a_pause(
    make_client: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "REREAD_SECONDS", 0.0)
    for end in ("pem", "key"):
        shutil.copy(folder / f"stranger.{end}", tmp_path / f"me.{end}")
    shutil.copy(folder / "ours.pem", tmp_path)
    with (
        serving(FakeService(stream=in_order), credentials=server(folder, asks=True)) as target,
        make_client(target, tls=client_of(tmp_path, "me", "ours")) as client,
    ):
        with pytest.raises(UnavailableError):
            client.predict("echo", ONE)
        for name in ("client", "other"):
            shutil.copy(folder / f"{name}.pem", tmp_path / "me.pem")
            if name == "other":
                # Half of the pair is new: the old one is still used.
                assert client.predict("echo", ONE).outputs["x"] == [1]
            shutil.copy(folder / f"{name}.key", tmp_path / "me.key")
            assert client.predict("echo", ONE).outputs["x"] == [1]
            (answer,) = client.predict_many("echo", [ONE])
            assert answer.outputs["x"] == [1]


def test_new_certificates_are_new_connections_and_old_calls_end_on_theirs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "REREAD_SECONDS", 0.0)
    shutil.copy(folder / "ours.pem", tmp_path)
    service = FakeService(stream=in_order)
    with (
        serving(service, credentials=server(folder)) as target,
        Client(target, tls=client_of(tmp_path, None, "ours")) as client,
    ):
        answers = client.predict_many("echo", [ONE] * 4, in_flight=2)
        next(answers)
        (tmp_path / "ours.pem").write_bytes(
            b"".join((folder / f"{one}.pem").read_bytes() for one in ("theirs", "ours"))
        )
        before = client._connections._all.keys()
        assert client.predict("echo", ONE).outputs["x"] == [1]
        assert client._connections._all.keys() != before
        assert [type(answer) for answer in answers] == [Prediction] * 3


def test_what_cannot_be_used_is_refused_before_a_connection_is_made(make_client: Any, folder: Path) -> None:
    pem, key = (folder / "client.pem").read_bytes(), (folder / "client.key").read_bytes()
    for wrong, words in (
        (Tls(root_certificates=b"rubbish"), "root_certificates: no certificate in PEM"),
        (Tls(certificate_chain=b"rubbish", private_key=key), "certificate_chain: no certificate in PEM"),
        (Tls(certificate_chain=pem, private_key=pem), "private_key: no key in PEM"),
        (
            Tls(certificate_chain=folder / "client.pem", private_key=folder / "server.key"),
            r"server\.key is not the key of .*client\.pem",
        ),
    ):
        with pytest.raises(ValueError, match=words), make_client("127.0.0.1:1", tls=wrong):
            pass
    with (
        pytest.raises(FileNotFoundError, match=r"nothing\.pem"),
        make_client("127.0.0.1:1", tls=client_of(folder, roots="nothing")),
    ):
        pass
    # gRPC would end the process for it.
    for chain, alone in ((None, key), (pem, None)):
        with pytest.raises(ValueError, match="belong together"):
            Tls(certificate_chain=chain, private_key=alone)
    with pytest.raises(TypeError, match=r"root_certificates is PEM in bytes or a pathlib\.Path, not str"):
        Tls(root_certificates="ours.pem")  # type: ignore[arg-type]


def test_no_key_is_shown(folder: Path) -> None:
    key = (folder / "client.key").read_bytes()
    given = Tls(certificate_chain=(folder / "client.pem").read_bytes(), private_key=key)
    middle = key.splitlines()[1].decode()
    assert middle not in repr(given)
    assert middle not in repr(tls.load(given))
