"""Who may read what over HTTP.

On the loopback everybody on the machine may, but no web page: one whose name was made to lead here (DNS rebinding)
still sends its own name as Host. Beyond the loopback an observer may, where there are tokens or certificates of
clients to tell one by; whether the daemon lives and is ready is everybody's.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from predictd.server.access.decisions import model_refusal, refusal
from predictd.server.access.identity import Identity
from predictd.server.access.methods import OBSERVE
from predictd.server.access.rules import REMOTE
from predictd.server.access.tokens import Credential, Keyring, digest_of
from predictd.server.errors import RefusalReason
from predictd.server.observe.http import Handler, Request, Response

HEALTH, READY = "/healthz", "/readyz"
# A browser asks its user for a name, whatever it is, and a password: the token.
_CHALLENGE = (("WWW-Authenticate", 'Basic realm="predictd", charset="UTF-8"'),)

_log = logging.getLogger(__name__)


class HttpAccess:
    """Lets HTTP requests in or refuses them.

    Args:
        host: Where HTTP listens, as it was told.
        private: Only this machine reaches it.
        keyring: Who may do what, as of now; None where there are no tokens.
        client_certificates: Clients may show a certificate.
        count: Told the reason of each refusal.
    """

    def __init__(
        self,
        host: str,
        *,
        private: bool,
        keyring: Callable[[], Keyring | None],
        client_certificates: bool,
        count: Callable[[RefusalReason], None],
    ) -> None:
        self._host = host
        self._private = private
        self._keyring = keyring
        self._client_certificates = client_certificates
        self._count = count

    def guard(self, routes: Mapping[str, Handler]) -> dict[str, Handler]:
        """The same routes for those who are let in."""
        return {path: self._guarded(path, handler) for path, handler in routes.items()}

    def _guarded(self, path: str, handler: Handler) -> Handler:
        if path == HEALTH:
            return handler

        async def guarded(request: Request) -> Response:
            if self._private:
                host = request.headers.get("host", "")
                if path != READY and not _is_ours(host, self._host):
                    return _text(HTTPStatus.MISDIRECTED_REQUEST, "the Host header names none of this machine")
                return await handler(request)
            reason = self._refusal(request)
            if reason is None:
                return await handler(request)
            if path == READY:
                return _brief(await handler(request))
            return self._refused(reason)

        return guarded

    def _refusal(self, request: Request) -> RefusalReason | None:
        identity, shown = self._identity(request)
        reason = refusal(OBSERVE, identity, time.time())
        if reason == "no_credentials" and shown:
            return "invalid_credentials"
        # What is shown is about every model.
        return reason or model_refusal(identity, None)

    def _identity(self, request: Request) -> tuple[Identity | None, bool]:
        """Who asks, and whether they showed a token."""
        keyring = self._keyring()
        header = request.headers.get("authorization")
        if keyring is None:
            known = request.certificate or not self._client_certificates
            return (REMOTE if known else None), False
        if header is not None:
            return keyring.find(Credential(digest_of(_token(header)))), True
        return keyring.find(_credential(request.certificate)), False

    def _refused(self, reason: RefusalReason) -> Response:
        self._count(reason)
        _log.warning("an HTTP request was refused: %s", reason)
        if reason in ("no_credentials", "invalid_credentials"):
            return _text(HTTPStatus.UNAUTHORIZED, "a token with the role observe is needed", _CHALLENGE)
        return _text(HTTPStatus.FORBIDDEN, "this needs the role observe, for every model")


def _token(header: str) -> str:
    """The token in an Authorization header: Bearer's, or the password of Basic; empty if there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace").partition(":")[2]
    except ValueError:
        # No base64, or not even ASCII.
        return ""


def _credential(certificate: Mapping[str, Any]) -> Credential:
    subject = (pair for parts in certificate.get("subject", ()) for pair in parts)
    return Credential(
        alternative_names=frozenset(value for _, value in certificate.get("subjectAltName", ())),
        common_name=next((value for key, value in subject if key == "commonName"), ""),
    )


def _is_ours(header: str, host: str) -> bool:
    """Whether a Host header is no other site's: no name, an address, or a name of this machine."""
    name = header.rpartition(":")[0] if not header.endswith("]") and ":" in header else header
    name = name.strip("[]").lower().rstrip(".")
    if name in ("", "localhost", host.lower()) or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _brief(response: Response) -> Response:
    """Whether it is ready, without the names of models and the reasons."""
    return Response(response.body.partition(b"\n")[0] + b"\n", response.status)


def _text(status: HTTPStatus, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(f"{message}\n".encode(), status, headers=headers)
