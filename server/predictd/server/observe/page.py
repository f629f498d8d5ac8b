"""The status page: one file, whose script and style are the only ones that a browser may run with it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from predictd.server.observe.http import Response

_PARTS = {"script-src": "script", "style-src": "style"}
# Beyond the hashes: what the page may ask for, and that no other page may frame it, or feed it text as code.
_POLICY = (
    "default-src 'none'",
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)


@cache
def status_page() -> Response:
    """The page, read once."""
    body = resources.files(__package__).joinpath("status.html").read_bytes()
    headers = (
        ("Content-Security-Policy", content_security_policy(body)),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    )
    return Response(body, content_type="text/html; charset=utf-8", headers=headers)


def content_security_policy(page: bytes) -> str:
    """The policy under which a page's own script and style run, told by their hashes, and nothing else does."""
    hashes = (
        f"{directive} {' '.join(_hashes(page, element))}".rstrip() for directive, element in _PARTS.items()
    )
    return "; ".join((*_POLICY, *hashes))


def _hashes(page: bytes, element: str) -> list[str]:
    parts = re.findall(rf"<{element}>(.*?)</{element}>".encode(), page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part).digest()).decode() for part in parts)
    return [f"'sha256-{digest}'" for digest in digests]
