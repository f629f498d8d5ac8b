"""The end of a front end that fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

_log = logging.getLogger(__name__)


def or_exit(callback: Callable[[], None]) -> Callable[[], None]:
    """Let a front end that fails die and be started anew: what it has read from a pipe and not handled is lost."""

    def guarded() -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - whatever it is, it is a bug
            _log.exception("the front end failed")
            os._exit(1)

    return guarded
