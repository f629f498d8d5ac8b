"""Who a caller is, once that is known, and what that lets them do."""

from __future__ import annotations

import fnmatch
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

EVERY_MODEL = ("*",)


class Role(StrEnum):
    """What callers may be let do."""

    INFER = "infer"
    OBSERVE = "observe"
    CONTROL = "control"


EVERY_ROLE = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller.

    Attributes:
        name: As the file of tokens has it; empty for whoever needs no token. Never the token.
        roles: What it may do.
        models: Which models it may do that with: patterns as of file names, such as `resnet*`.
        expires_unix_seconds: When all that ends.
    """

    name: str
    roles: frozenset[Role]
    models: tuple[str, ...] = EVERY_MODEL
    expires_unix_seconds: float = math.inf

    def may_use(self, model: str) -> bool:
        """Whether a model is among its own, if there is one of that name."""
        return _matcher(self.models).match(model) is not None

    @property
    def has_every_model(self) -> bool:
        """It may use whatever model there is, or will be."""
        return "*" in self.models


@lru_cache(1024)
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)))
