"""Certificates in PEM: when they are valid, and what is of no use."""

from __future__ import annotations

import ssl
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.access.certificates import CertificateError, ask_clients, server_context, validity
from tests.fixtures.certificates import Authority

DAY = 86400


@pytest.fixture(scope="module", name="authority")
def _authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


def test_a_chain_is_valid_while_all_of_it_is(authority: Authority) -> None:
    short, long = authority.sign("short", "DNS:a", days=2), authority.sign("long", days=5)
    chain = short.certificate.read_bytes() + b"# in between\n" + long.certificate.read_bytes()
    found = validity(chain)
    assert found.to_unix_seconds == pytest.approx(time.time() + 2 * DAY, abs=300)
    assert found.from_unix_seconds == pytest.approx(time.time(), abs=300)
    printed = subprocess.run(
        ("openssl", "x509", "-in", short.certificate, "-noout", "-enddate"),
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert ssl.cert_time_to_seconds(printed.strip().removeprefix("notAfter=")) == found.to_unix_seconds


def test_times_beyond_2049_are_written_otherwise(authority: Authority) -> None:
    late = authority.sign("late", days=365 * 60)
    assert validity(late.certificate.read_bytes()).to_unix_seconds > time.time() + 59 * 365 * DAY


def test_key_and_certificate_belong_together(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.sign("one"), authority.sign("other")
    chain, key = one.certificate.read_bytes(), one.key.read_bytes()
    context = server_context(chain, key)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    modes = [context.verify_mode]
    ask_clients(context, "# größe\n".encode() + authority.certificate.read_bytes())
    modes.append(context.verify_mode)
    assert modes == [ssl.CERT_NONE, ssl.CERT_OPTIONAL]
    locked = tmp_path / "locked"
    subprocess.run(
        ("openssl", "pkey", "-in", one.key, "-aes256", "-passout", "pass:x", "-out", locked), check=True
    )
    for wrong_chain, wrong_key, message in (
        (chain, other.key.read_bytes(), "the key is not that of the certificate"),
        (chain, b"", "cannot be read"),
        (chain, b"x", "cannot be read"),
        (b"", key, "cannot be read"),
        (chain, locked.read_bytes(), "the key is encrypted"),
    ):
        with pytest.raises(CertificateError, match=message):
            server_context(wrong_chain, wrong_key)
    for nothing in (b"x", b"\xff", key):
        with pytest.raises(CertificateError, match="no certificate in PEM"):
            ask_clients(context, nothing)


def test_what_is_no_certificate_is_refused(authority: Authority) -> None:
    pem = authority.certificate.read_bytes()
    with pytest.raises(CertificateError, match="no certificate in PEM"):
        validity(b"nothing")
    lines = pem.splitlines(keepends=True)
    with pytest.raises(CertificateError, match="cannot be read"):
        validity(b"".join([lines[0], lines[1], lines[-1]]))


@given(st.data())
def test_bytes_that_are_wrong_are_an_error_of_one_kind(authority: Authority, data: st.DataObject) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(authority.certificate.read_text()))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, min(len(der), 160) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(der)))
    pem = ssl.DER_cert_to_PEM_cert(bytes(der[:cut])).encode()
    try:
        found = validity(pem)
    except CertificateError:
        return
    assert found.from_unix_seconds < 4e11
