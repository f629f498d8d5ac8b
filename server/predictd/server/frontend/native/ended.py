"""Lines of the request log about requests that the loop in C brought to an end."""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

from predictd.server.frontend.native.counts import APIS, STATUSES
from predictd.server.frontend.native.packing import Command, address, longs
from predictd.server.frontend.native.recovery import Method
from predictd.server.frontend.native.seen import Seen
from predictd.server.frontend.request_log import LoggedService, note_call

if TYPE_CHECKING:
    from predictd.server.config.request_log import RequestLogRule
    from predictd.server.frontend.access import Access

# `struct line`.
_LINE = struct.Struct("<BB2xIIII4xQQQQ")
_SHARE_MAX = (1 << 64) - 1
_NS = 10**9


class EndedRequests:
    """Has requests logged of which Python hears when they are over.

    Args:
        command: To the loop, which is told which it shall tell of.
        service: Logs.
        access: Knows who calls.
    """

    def __init__(self, command: Command, service: LoggedService, access: Access) -> None:
        self._service = service
        self._access = access
        # How many lines were read, for the loop: with too many before it, Python gets requests instead.
        self._read = array("Q", [0])
        where, self._keep = address(self._read)
        command("request_log", longs(*_drawing(service.rule), where))

    def note(self, about: bytes) -> None:
        """Have the present call be one that was handed over."""
        seen = Seen.parse(about)
        note_call(seen)
        self._access.note(seen)

    def on_line(self, data: bytes) -> None:
        """A request has ended that shall have a line."""
        self._read[0] += 1
        method, status, rows, batch_rows, model_bytes, id_bytes, version, total_ns, queue_ns, compute_ns = (
            _LINE.unpack_from(data)
        )
        ran = STATUSES[status] == "OK"
        model_end = _LINE.size + model_bytes
        seen = Seen.parse(data[model_end + id_bytes :])
        fields: dict[str, str | float | None] = {
            "model": data[_LINE.size : model_end].decode(),
            "version": version or None,
            "request_id": data[model_end : model_end + id_bytes].decode(),
        }
        if ran:
            fields |= {
                "rows": rows,
                "batch_rows": batch_rows,
                "queue_seconds": queue_ns / _NS,
                "compute_seconds": compute_ns / _NS,
            }
        self._service.ended(
            seen,
            self._access.name_of(seen),
            APIS[Method(method) in (Method.MODEL_INFER, Method.MODEL_STREAM_INFER)],
            STATUSES[status],
            total_ns / _NS,
            fields,
        )


def _drawing(rule: RequestLogRule) -> tuple[int, int, int]:
    """A rule as the loop has it: a share, or time between two lines and how much of it may be saved up."""
    if not rule.per_second:
        return min(max(int(rule.fraction * 2**64), 1), _SHARE_MAX), 0, 0
    interval_ns = int(_NS / rule.per_second)
    return 0, interval_ns, int((max(rule.per_second, 1.0) - 1) * interval_ns)
