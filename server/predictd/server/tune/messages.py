"""What the search and its processes of callers say to each other: one JSON object a line."""

from __future__ import annotations

import msgspec


class Ask(msgspec.Struct, tag=True):
    """Get ready for a daemon: read its model's signature, make the request, and send it once.

    Attributes:
        target: Where it listens.
        model: Whom to ask.
        input_file: An .npz file with the request; empty to make one up.
    """

    target: str
    model: str
    input_file: str = ""


class Drive(msgspec.Struct, tag=True):
    """Keep callers busy; count the answers that come in a window of CLOCK_MONOTONIC.

    Attributes:
        callers: Of this process.
        begin_ns: Begin of the window; callers begin at once.
        end_ns: Its end.
        answers: If there were fewer, the window goes on.
        latest_ns: But not beyond this.
    """

    callers: int
    begin_ns: int
    end_ns: int
    answers: int
    latest_ns: int


class Asked(msgspec.Struct, tag=True):
    """The model answers.

    Attributes:
        batches: Rows of several requests may share a run.
    """

    batches: bool


class Driven(msgspec.Struct, tag=True):
    """What was counted.

    Attributes:
        seconds: How long the window was.
        latencies_ns: Of the answers in it.
        ends_ns: When they came, counted from its begin.
    """

    seconds: float
    latencies_ns: list[int]
    ends_ns: list[int]


class Refused(msgspec.Struct, tag=True):
    """It cannot be done.

    Attributes:
        reason: Why; one line.
        by_request: The request is the reason, whatever the settings.
    """

    reason: str
    by_request: bool = False


Command = Ask | Drive
Answer = Asked | Driven | Refused
