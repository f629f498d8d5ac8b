"""nghttp2's `h2load`, where it is installed: an independent load generator, in C and cheap.

It looks at the HTTP status only, so its count must be compared with the server's own count of status OK.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

from tests.bench.load import LoadError, Shape
from tests.bench.payload import METHOD, Payload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TIMEOUT_SECONDS = 120.0
_HEADERS = ("content-type: application/grpc", "te: trailers")
_RATE = re.compile(r"^finished in [^,]+, ([\d.]+) req/s", re.MULTILINE)
_SUCCEEDED = re.compile(r"^requests: .* (\d+) succeeded", re.MULTILINE)


def installed() -> bool:
    """Whether it is on the PATH."""
    return shutil.which("h2load") is not None


def requests_per_second(
    target: str,
    payload: Payload,
    shape: Shape,
    requests: int,
    folder: Path,
    *,
    tls: bool = False,
    headers: Sequence[str] = (),
) -> float:
    """Send one request over and over.

    Args:
        target: HOST:PORT.
        payload: Its first request is sent.
        shape: Of the load.
        requests: How many.
        folder: For a file of the request.
        tls: Encrypted; any certificate will do.
        headers: Further ones, such as `name: value`.
    """
    body = folder / "h2load.body"
    body.write_bytes(b"\0" + struct.pack(">I", len(payload.bodies[0])) + payload.bodies[0])
    done = subprocess.run(
        [
            *("h2load", "-d", str(body)),
            *(each for header in (*_HEADERS, *headers) for each in ("-H", header)),
            *("-c", str(shape.connections), "-m", str(shape.in_flight), "-n", str(requests)),
            f"{'https' if tls else 'http'}://{target}{METHOD}",
        ],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    rate, succeeded = _RATE.search(done.stdout), _SUCCEEDED.search(done.stdout)
    if done.returncode != 0 or rate is None or succeeded is None or int(succeeded[1]) != requests:
        raise LoadError(f"h2load against {target}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return float(rate[1])
