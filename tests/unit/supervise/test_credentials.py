"""Certificate, key and tokens: what is taken, what is not, and when."""

from __future__ import annotations

import os
import shutil
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from predictd.server.access.identity import Role
from predictd.server.access.material import Material, read_material, write_material
from predictd.server.access.tokens import Credential, TokenEntry, digest_of, entry_text, hash_text
from predictd.server.config.settings import Settings
from predictd.server.supervise.credentials import Credentials, CredentialsError
from tests.fixtures.certificates import Authority, Pair


@pytest.fixture(scope="module", name="authority")
def _authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module", name="pairs")
def _pairs(authority: Authority) -> tuple[Pair, Pair]:
    return authority.sign("one", days=30), authority.sign("two", days=60)


class Files:
    """Files as settings name them."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key, self.tokens = (folder / name for name in ("c.pem", "k.pem", "t.toml"))

    def put(self, certificate: Pair, key: Pair | None = None) -> None:
        for source, target in (
            (certificate.certificate, self.certificate),
            ((key or certificate).key, self.key),
        ):
            temporary = target.with_suffix(".new")
            shutil.copy(source, temporary)
            temporary.chmod(0o600)
            temporary.replace(target)

    def put_tokens(self, *tokens: str) -> None:
        entries = [TokenEntry(name=token, hash=hash_text(token), roles=(Role.INFER,)) for token in tokens]
        temporary = self.tokens.with_suffix(".new")
        temporary.write_text("".join(map(entry_text, entries)))
        temporary.replace(self.tokens)

    def make_pipe(self) -> None:
        self.tokens.unlink()
        os.mkfifo(self.tokens)

    def credentials(self, **more: Any) -> Credentials:
        return Credentials(
            Settings(tls_certificate=self.certificate, tls_key=self.key, tokens=self.tokens, **more)
        )


@pytest.fixture(name="files")
def _files(tmp_path: Path, pairs: tuple[Pair, Pair]) -> Files:
    files = Files(tmp_path)
    files.put(pairs[0])
    files.put_tokens("a")
    return files


def is_known(credentials: Credentials, token: str) -> bool:
    assert credentials.keyring is not None
    return credentials.keyring.find(Credential(digest_of(token))) is not None


def test_new_files_are_taken_once_they_were_seen_alike_twice(files: Files, pairs: tuple[Pair, Pair]) -> None:
    credentials = files.credentials()
    first, expiry = credentials.context, credentials.expiry_unix_seconds
    assert expiry is not None
    assert not credentials.refresh(at_once=False)
    files.put(pairs[1])
    files.put_tokens("b")
    assert not credentials.refresh(at_once=False)
    assert credentials.refresh(at_once=False)
    assert not credentials.refresh(at_once=False)
    assert credentials.context is not first
    assert credentials.expiry_unix_seconds == pytest.approx(expiry + 30 * 86400, abs=300)
    assert [is_known(credentials, token) for token in ("a", "b")] == [False, True]
    material = read_material(credentials.open())
    assert material == Material(
        pairs[1].certificate.read_bytes(), pairs[1].key.read_bytes(), b"", files.tokens.read_bytes()
    )


def test_a_signal_has_them_read_at_once_and_the_same_is_nothing_new(
    files: Files, pairs: tuple[Pair, Pair]
) -> None:
    credentials = files.credentials()
    assert not credentials.refresh(at_once=True)
    files.put(pairs[1])
    assert credentials.refresh(at_once=True)
    assert not credentials.refresh(at_once=True)


def test_what_cannot_be_taken_changes_nothing_and_is_said_once(
    files: Files, pairs: tuple[Pair, Pair], caplog: pytest.LogCaptureFixture
) -> None:
    credentials = files.credentials()
    context = credentials.context
    files.put(pairs[1], pairs[0])
    files.tokens.unlink()
    for _ in range(4):
        assert not credentials.refresh(at_once=False)
    assert credentials.context is context
    assert is_known(credentials, "a")
    assert credentials.failures == {"certificate": 1, "tokens": 1}
    assert [
        record.getMessage().partition(f" {files.certificate.parent}")[0] for record in caplog.records
    ] == [
        "certificate: what is new cannot be taken, the old stays: tls_certificate:",
        "tokens: what is new cannot be taken, the old stays: tokens:",
    ]
    files.put(pairs[1])
    files.put_tokens("c")
    assert [credentials.refresh(at_once=False) for _ in range(2)] == [False, True]
    assert is_known(credentials, "c")


def test_a_certificate_whose_time_comes_is_taken_then(
    files: Files, pairs: tuple[Pair, Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = files.credentials()
    begin = time.time()
    monkeypatch.setattr("time.time", lambda: begin - 40 * 86400)
    files.put(pairs[1])
    assert [credentials.refresh(at_once=False) for _ in range(4)] == [False] * 4
    assert credentials.failures["certificate"] == 1
    # Who asks is told again.
    assert not credentials.refresh(at_once=True)
    assert credentials.failures["certificate"] == 2
    monkeypatch.setattr("time.time", lambda: begin)
    assert [credentials.refresh(at_once=False) for _ in range(2)] == [True, False]


def test_links_that_move_are_followed(files: Files, pairs: tuple[Pair, Pair], tmp_path: Path) -> None:
    for name, pair in zip(("1", "2"), pairs, strict=True):
        (tmp_path / name).mkdir()
        Files(tmp_path / name).put(pair)
    data = tmp_path / "data"
    data.symlink_to("1")
    for path in (files.certificate, files.key):
        path.unlink()
        path.symlink_to(data / path.name)
    credentials = files.credentials()
    link = tmp_path / "link"
    link.symlink_to("2")
    link.replace(data)
    assert [credentials.refresh(at_once=False) for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.key.unlink(), "tls_key: {}/k.pem: no such file or directory"),
        (
            lambda files: files.certificate.write_bytes(b"x"),
            "tls_certificate: {}/c.pem: there is no certificate",
        ),
        (
            lambda files: files.key.write_bytes(bytes(2**20 + 1)),
            "tls_key: {}/k.pem: larger than 1048576 bytes: no such file is",
        ),
        (lambda files: files.tokens.write_text("x"), "tokens: {}/t.toml: not TOML"),
        # Opened without a look, it would keep the daemon waiting for somebody to write.
        (
            lambda files: files.make_pipe(),
            "tokens: {}/t.toml: not a regular file",
        ),
        (
            lambda files: files.tokens.chmod(0o666),
            "tokens: {}/t.toml: everybody on this machine can write to it",
        ),
    ],
)
def test_at_the_start_what_is_wrong_is_one_line(files: Files, spoil: Any, message: str) -> None:
    spoil(files)
    with pytest.raises(CredentialsError) as caught:
        files.credentials()
    assert str(caught.value).startswith(message.format(files.key.parent))
    assert "\n" not in str(caught.value)


def test_a_certificate_that_is_over_or_has_not_begun_is_refused(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    expiry = files.credentials().expiry_unix_seconds
    assert expiry is not None
    for now, message in ((expiry, "it expired on 20"), (expiry - 40 * 86400, "it is not valid before 20")):
        monkeypatch.setattr("time.time", lambda now=now: now)
        with pytest.raises(CredentialsError, match=message):
            files.credentials()


def test_authorities_of_clients_are_asked_for_and_must_be_some(files: Files, authority: Authority) -> None:
    credentials = files.credentials(tls_client_ca=authority.certificate)
    assert credentials.context is not None
    assert credentials.context.verify_mode is ssl.CERT_OPTIONAL
    with pytest.raises(CredentialsError, match=r"tls_client_ca: .*t\.toml: there is no certificate"):
        files.credentials(tls_client_ca=files.tokens)


def test_an_operator_is_warned(files: Files, authority: Authority) -> None:
    assert files.credentials().warnings() == []
    files.put(authority.sign("short", days=5))
    files.key.chmod(0o644)
    assert files.credentials().warnings() == [
        f"tls_key: everybody on this machine can read {files.key}",
        f"tls_certificate: {files.certificate} is valid for 5 days more",
    ]


def test_without_files_there_is_nothing() -> None:
    credentials = Credentials(Settings())
    assert not credentials.any
    assert (credentials.keyring, credentials.context, credentials.failures) == (None, None, {})


def test_material_is_read_from_one_file_by_many() -> None:
    fd = write_material(Material(b"c", b"k", b"a", b"t"))
    copies = [os.dup(fd) for _ in range(3)]
    assert [read_material(copy) for copy in (*copies, fd)] == [Material(b"c", b"k", b"a", b"t")] * 4
    for descriptor in (*copies, fd):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
