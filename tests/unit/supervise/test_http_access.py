"""Who may read what over HTTP."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import pytest

from predictd.server.access.identity import EVERY_ROLE, Identity, Role
from predictd.server.access.tokens import CertificateEntry, Keyring, digest_of
from predictd.server.errors import RefusalReason
from predictd.server.observe.http import Handler, Request, Response
from predictd.server.supervise.http_access import HttpAccess

OBSERVER = Identity("observer", frozenset({Role.OBSERVE}))
JOB = CertificateEntry(name="job", common_name="job", roles=(Role.OBSERVE,))
KEYS = Keyring(
    [
        (digest_of("good"), OBSERVER),
        (digest_of("infers"), Identity("infers", frozenset({Role.INFER}))),
        (digest_of("limited"), Identity("limited", EVERY_ROLE, ("a",))),
        (digest_of("over"), Identity("over", EVERY_ROLE, expires_unix_seconds=1.0)),
    ],
    [(JOB, OBSERVER)],
)
SUBJECT: Mapping[str, Any] = {"subject": ((("countryName", "XX"),), (("commonName", "job"),))}
PATHS = ("/", "/status.json", "/metrics", "/readyz", "/healthz")


async def _answer(_: Request) -> Response:
    return Response(b"first\nsecond\n")


def ask(
    path: str,
    *,
    private: bool,
    keys: Keyring | None = None,
    certificates: bool = False,
    certificate: Mapping[str, Any] | None = None,
    **headers: str,
) -> tuple[int, bytes, list[RefusalReason]]:
    reasons: list[RefusalReason] = []
    access = HttpAccess(
        "predictd.example",
        private=private,
        keyring=lambda: keys,
        client_certificates=certificates,
        count=reasons.append,
    )
    routes: dict[str, Handler] = access.guard(dict.fromkeys(PATHS, _answer))
    handling: Any = routes[path](Request("GET", path, "", headers, certificate or {}))
    response = asyncio.run(handling)
    return response.status, response.body, reasons


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8002", 200),
        ("127.0.0.1", 200),
        ("[::1]:8002", 200),
        ("[::1]", 200),
        ("10.1.2.3:1", 200),
        ("localhost:8002", 200),
        ("LocalHost", 200),
        ("a.localhost:80", 200),
        ("predictd.example:8002", 200),
        ("evil.example", 421),
        ("evil.example:8002", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8002", 421),
        ("evillocalhost", 421),
    ],
)
def test_on_the_loopback_no_other_site_s_page_reads_anything(host: str, status: int) -> None:
    assert [ask(path, private=True, host=host)[0] for path in PATHS[:3]] == [status] * 3
    assert [ask(path, private=True, host=host)[0] for path in PATHS[3:]] == [200] * 2
    # Who is no browser may leave it out, and nobody needs a token here.
    assert ask("/metrics", private=True, keys=KEYS)[0] == 200


@pytest.mark.parametrize(
    ("authorization", "status", "reason"),
    [
        ("Bearer good", 200, None),
        ("bearer good", 200, None),
        ("Basic " + base64.b64encode(b"me:good").decode(), 200, None),
        ("Basic " + base64.b64encode(b"good").decode(), 401, "invalid_credentials"),
        ("Basic x", 401, "invalid_credentials"),
        ("Basic \xff", 401, "invalid_credentials"),
        ("Bearer \xff", 401, "invalid_credentials"),
        ("Digest good", 401, "invalid_credentials"),
        ("good", 401, "invalid_credentials"),
        ("", 401, "invalid_credentials"),
        (None, 401, "no_credentials"),
        ("Bearer over", 401, "invalid_credentials"),
        ("Bearer infers", 403, "role"),
        # All models are shown, to whoever is shown any.
        ("Bearer limited", 403, "model"),
    ],
)
def test_beyond_the_loopback_observers_read(
    authorization: str | None, status: int, reason: str | None
) -> None:
    headers: dict[str, Any] = {} if authorization is None else {"authorization": authorization}
    for path in PATHS[:3]:
        found = ask(path, private=False, keys=KEYS, host="whatever.example", **headers)
        assert (found[0], found[2]) == (status, [reason] if reason else [])
    assert ask("/healthz", private=False, keys=KEYS, **headers)[:2] == (200, b"first\nsecond\n")
    # Whether it is ready is everybody's; names of models and reasons are not.
    known = b"first\nsecond\n" if status == 200 else b"first\n"
    assert ask("/readyz", private=False, keys=KEYS, **headers) == (200, known, [])


def test_certificates_say_who_asks_and_without_tokens_that_somebody_is_known() -> None:
    assert ask("/metrics", private=False, keys=KEYS, certificates=True, certificate=SUBJECT)[0] == 200
    assert ask("/metrics", private=False, keys=KEYS, certificates=True)[0] == 401
    other: Mapping[str, Any] = {"subjectAltName": (("DNS", "job"),)}
    assert ask("/metrics", private=False, keys=KEYS, certificates=True, certificate=other)[0] == 401
    assert ask("/metrics", private=False, certificates=True, certificate=other)[0] == 200
    assert ask("/metrics", private=False, certificates=True)[0] == 401
    assert ask("/metrics", private=False)[0] == 200
    # A token that is not known is not made up for by a certificate that is.
    spoilt = ask(
        "/metrics", private=False, keys=KEYS, certificates=True, certificate=SUBJECT, authorization="Bearer x"
    )
    assert spoilt[0] == 401
