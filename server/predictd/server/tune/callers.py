"""The parent's side of the processes of callers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.line_process import LineProcess, LineProcesses
from predictd.server.tune.messages import Answer, Ask, Asked, Command, Drive, Driven, Refused
from predictd.server.tune.objective import Point

T = TypeVar("T", bound=Answer)

_MODULE = "predictd.server.tune.load"
_DECODER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)
_ANSWER_SECONDS = 180.0
# Callers begin before the window does: the daemon's batches are as they will be.
_SETTLE_SHARE = 0.25
_DISPATCH_SECONDS = 0.05
# Fewer answers say nothing about one in a hundred.
_LEAST_ANSWERS = 100
# A slow model gets more time, but not without end.
_LONGEST = 4


class TrialError(Exception):
    """The candidate cannot be measured; one line."""


class SubjectError(Exception):
    """The model cannot be measured at all; one line."""


class Callers(LineProcesses[Answer]):
    """Processes that live over all trials.

    Args:
        processes: How many; more callers than these are divided among them.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(processes, _MODULE, "the process of callers", _DECODER.decode)

    def ask(self, command: Ask) -> Asked:
        """Connect all of them to a daemon.

        Raises:
            TrialError: The daemon does not answer.
            SubjectError: There is no request to send.
        """
        return self._all(lambda _: command, len(self._processes), Asked)[0]

    def drive(self, callers: int, seconds: float) -> Point:
        """Measure with so many callers for about so long.

        Raises:
            TrialError: A request failed.
        """
        used = min(callers, len(self._processes))
        begin_ns = time.monotonic_ns() + int((_DISPATCH_SECONDS + seconds * _SETTLE_SHARE) * 1e9)

        def command(number: int) -> Drive:
            return Drive(
                callers=len(range(number, callers, used)),
                begin_ns=begin_ns,
                end_ns=begin_ns + int(seconds * 1e9),
                answers=_LEAST_ANSWERS // used,
                latest_ns=begin_ns + int(seconds * _LONGEST * 1e9),
            )

        return _point(callers, self._all(command, used, Driven))

    def _all(self, command: Callable[[int], Command], used: int, kind: type[T]) -> list[T]:
        processes = self._processes[:used]
        try:
            for number, process in enumerate(processes):
                process.tell(command(number))
        except MeasureError as error:
            raise SubjectError(str(error)) from None
        # All of them answer before anything is raised: an answer must not be taken for that to another command.
        answers = [_hear(process) for process in processes]
        for answer in answers:
            if isinstance(answer, Refused):
                raise (SubjectError if answer.by_request else TrialError)(answer.reason)
        return [answer for answer in answers if isinstance(answer, kind)]


def _hear(process: LineProcess[Answer]) -> Answer:
    try:
        return process.hear(_ANSWER_SECONDS)
    except TimeoutError:
        raise TrialError(f"no answer within {_ANSWER_SECONDS:.0f} s") from None
    except MeasureError as error:
        raise SubjectError(str(error)) from None


def _point(callers: int, driven: list[Driven]) -> Point:
    latencies = sorted(each for one in driven for each in one.latencies_ns)
    if not latencies:
        raise TrialError(f"{callers} callers got no answer in time")
    return Point(
        callers,
        sum(_per_second(one) for one in driven),
        latencies[len(latencies) // 2] / 1e9,
        latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)] / 1e9,
        len(latencies),
    )


def _per_second(driven: Driven) -> float:
    """Throughput with a window that fades in and out, so that it does not matter where in a batch it cuts."""
    weights = (math.sin(math.pi * end_ns / 1e9 / driven.seconds) ** 2 for end_ns in driven.ends_ns)
    return 2 * sum(weights) / driven.seconds
