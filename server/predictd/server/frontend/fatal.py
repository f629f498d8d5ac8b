"""The end of a front end that fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

_log = logging.getLogger(__name__)


class TornPipeError(Exception):
    """A pipe of records holds something that is none, so that where the next one begins is not known."""


def or_exit(callback: Callable[[], None]) -> Callable[[], None]:
    """Let a front end that fails die and be started anew: what it has read from a pipe and not handled is lost."""

    def guarded() -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - whatever it is, it is a bug
            _log.exception("the front end failed")
            os._exit(1)

    return guarded
