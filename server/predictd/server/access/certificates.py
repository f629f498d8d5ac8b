"""Certificates and keys in PEM: do they belong together, how long are they valid, and TLS that shows them."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_ENCRYPTED = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED")
# ASN.1 tags (X.690) that stand in a certificate before its validity, and in that.
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


class CertificateError(Exception):
    """A certificate or key is of no use. The message is one line, without the file's name."""


@dataclass(frozen=True, slots=True)
class Validity:
    """When a chain of certificates is valid: while each of them is."""

    from_unix_seconds: float
    to_unix_seconds: float


def validity(chain: bytes) -> Validity:
    """When a chain in PEM is valid.

    Raises:
        CertificateError: There is no certificate in it, or one that cannot be read.
    """
    times = [_times(pem) for pem in _CERTIFICATE.findall(chain)]
    if not times:
        raise CertificateError("there is no certificate in PEM in it")
    return Validity(max(begin for begin, _ in times), min(end for _, end in times))


def server_context(chain: bytes, key: bytes) -> ssl.SSLContext:
    """TLS that shows a certificate.

    Args:
        chain: The certificate and those up to its root, in PEM.
        key: Its private key, in PEM.

    Raises:
        CertificateError: They do not belong together, or cannot be read.
    """
    if _ENCRYPTED.search(key):
        raise CertificateError("the key is encrypted, and there is nobody to ask for its password")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Python's ssl reads these from files only.
        with _file(chain) as chain_path, _file(key) as key_path:
            context.load_cert_chain(chain_path, key_path)
    except ssl.SSLError as error:
        raise CertificateError(_why_not(error)) from error
    return context


def ask_clients(context: ssl.SSLContext, authorities: bytes) -> None:
    """Have a server ask for certificates of these authorities, in PEM. Whoever shows none is let in without.

    Raises:
        CertificateError: They cannot be read.
    """
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError("there is no certificate in PEM in it that can be read") from error
    context.verify_mode = ssl.CERT_OPTIONAL


def _why_not(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return f"certificate or key cannot be read ({error.reason or 'no PEM'})"


@contextmanager
def _file(data: bytes) -> Iterator[Path]:
    """A path to bytes that are nowhere but in memory."""
    fd = os.memfd_create("predictd-tls", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _times(pem: bytes) -> tuple[float, float]:
    """From when and until when a certificate is valid (RFC 5280, 4.1)."""
    try:
        data = ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
        _, begin, _ = _element(data, 0)
        _, at, _ = _element(data, begin)
        tag, _, after = _element(data, at)
        if tag == _VERSION:
            _, _, after = _element(data, after)
        for _ in ("signature", "issuer"):
            _, _, after = _element(data, after)
        tag, at, _ = _element(data, after)
        if tag != _SEQUENCE:
            raise ValueError("no validity where it should be")
        first, begin, end = _element(data, at)
        second, begin_2, end_2 = _element(data, end)
        return _time(first, data[begin:end]), _time(second, data[begin_2:end_2])
    except (ValueError, IndexError) as error:
        raise CertificateError("it has a certificate that cannot be read") from error


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the element there, where its content begins, and where it ends."""
    tag, length, begin = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[begin : begin + count], "big")
        begin += count
    if begin + length > len(data):
        raise ValueError("it is cut off")
    return tag, begin, begin + length


def _time(tag: int, text: bytes) -> float:
    digits = text.decode("ascii")
    if tag == _UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
