"""When a failed request is tried again. No I/O.

A request is repeated only if that is safe (inference and reading are, changes are not) and of use: where the daemon or
the way to it was not available, or where an overloaded daemon said when to come back. The wait is what the server asks
for, else grows exponentially with jitter. A budget that all calls of a client share keeps retries from making an
overload worse: they stop where too many calls fail.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from predictd.client.errors import OverloadedError, PredictdError, TlsError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often, and after which wait.

    Attributes:
        attempts: Tries of one request, the first one included; 1 never retries.
        first_seconds: The longest wait before the second try. It doubles with each further one.
        most_seconds: The longest wait of all, unless the server asks for more.
        budget: Retries that may be made in a row while nothing succeeds. A daemon that leaves refuses at once what is
            in flight towards it, so that it is more than a pipeline has.
        earned: What a success adds to that budget.
    """

    attempts: int = 4
    first_seconds: float = 0.05
    most_seconds: float = 2.0
    budget: float = 100.0
    earned: float = 0.1

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"there is at least 1 attempt, not {self.attempts}")


NO_RETRIES = Retries(attempts=1)


class Budget:
    """What is left of the retries that a client may make."""

    def __init__(self, retries: Retries, draw: random.Random | None = None) -> None:
        self._retries = retries
        self._draw = draw or random.Random()  # noqa: S311 - jitter, no secret
        self.left = retries.budget

    def succeeded(self) -> None:
        """A call was answered."""
        self.left = min(self.left + self._retries.earned, self._retries.budget)

    def pause_seconds(self, error: PredictdError, attempt: int, left_seconds: float) -> float | None:
        """How long to wait before the next attempt; None if there shall be none.

        Args:
            error: What the last one met.
            attempt: Its number, from 1.
            left_seconds: Until the deadline of the call.
        """
        if attempt >= self._retries.attempts or not is_passing(error) or self.left < 1:
            return None
        pause = self._wait_seconds(error, attempt)
        if pause >= left_seconds:
            return None
        self.left -= 1
        return pause

    def _wait_seconds(self, error: PredictdError, attempt: int) -> float:
        rules = self._retries
        backoff = min(rules.first_seconds * 2 ** (attempt - 1), rules.most_seconds)
        asked = error.retry_after_seconds
        if asked is None:
            return self._draw.uniform(backoff / 2, backoff)
        # Those who were refused together shall not come back together.
        return asked if math.isinf(asked) else asked * self._draw.uniform(1.0, 1.25)


def is_passing(error: PredictdError) -> bool:
    """Another attempt may succeed."""
    if isinstance(error, OverloadedError):
        return error.retry_after_seconds is not None
    return isinstance(error, UnavailableError) and not isinstance(error, TlsError)
