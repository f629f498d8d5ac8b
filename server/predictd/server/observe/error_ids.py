"""Ids of errors: what clients are told in place of what went wrong, and what the log explains."""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

SAME_SECONDS: Final = 1.0
PLACES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class ErrorId:
    """What to tell of an error.

    Attributes:
        id: For the client and the log.
        new: It is not in the log yet.
        repeated: How often the id before this one, of the same error, was told again.
    """

    id: str
    new: bool
    repeated: int = 0


@dataclass(slots=True)
class _Known:
    id: str
    until_seconds: float
    repeated: int = 0


class ErrorIds:
    """Gives ids. Keeps no clock.

    An error that comes again within a second has the id that it had: so the log needs one entry a second for it, and
    explains every id all the same.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, _Known] = {}

    def id_of(self, place: Hashable, now_seconds: float) -> ErrorId:
        """The id of an error; errors are the same when their places are."""
        known = self._known.pop(place, None)
        if known is not None and now_seconds < known.until_seconds:
            known.repeated += 1
            self._known[place] = known
            return ErrorId(known.id, new=False)
        if len(self._known) >= PLACES_MAX:
            del self._known[next(iter(self._known))]
        made = self._known[place] = _Known(secrets.token_hex(4), now_seconds + SAME_SECONDS)
        return ErrorId(made.id, new=True, repeated=known.repeated if known else 0)


def place_of(error: Exception) -> Hashable:
    """The same of errors of one type that were raised on one line."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    name = type(error).__qualname__
    return (name, step.tb_frame.f_code.co_filename, step.tb_lineno) if step else (name, "", 0)
