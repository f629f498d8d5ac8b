"""What a process of the load generator is told, and what it says: one line of JSON each."""

from __future__ import annotations

import msgspec

from predictd.server.bench.access import PLAIN, Access


class Line(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Base of all of them; the class name is the tag on the wire."""


class Ready(Line, frozen=True, kw_only=True):
    """Said once: everything is imported."""


class Drive(Line, frozen=True, kw_only=True):
    """Put load on a server until Stop. Answered by an Interval each time that one is over, then by Done.

    Attributes:
        target: HOST:PORT or unix:PATH.
        api: See `dialects`.
        streams: Send over one stream a connection.
        payload: File with a `Payload`.
        connections: Of this process.
        callers: Of this process in a closed loop; 0 is an open loop.
        rate: Of all processes together in an open loop, a second.
        arrivals: One of `schedule.ARRIVALS`.
        part: Which process this is.
        parts: How many there are.
        in_flight_max: Requests of this process under way in an open loop.
        timeout: Deadline of calls, as gRPC writes it; empty for none.
        begin_ns: Begin of the first interval, and of the schedule.
        interval_ns: Length of each.
        access: How the server is reached.
    """

    target: str
    api: str
    streams: bool
    payload: str
    connections: int
    callers: int = 0
    rate: float = 0.0
    arrivals: str = "poisson"
    part: int = 0
    parts: int = 1
    in_flight_max: int = 0
    timeout: str = ""
    begin_ns: int
    interval_ns: int
    access: Access = PLAIN


class Stop(Line, frozen=True, kw_only=True):
    """Start no more calls, await those under way.

    Attributes:
        drain_seconds: But not longer.
    """

    drain_seconds: float


class Interval(Line, frozen=True, kw_only=True):
    """What happened between two points in time.

    Attributes:
        number: From 0.
        latencies: Of the answers that came in it, one histogram a model, as `Histogram.counts` has it.
        late: How late requests were sent, another histogram.
        errors: How often each happened.
        in_flight: Calls under way at its end.
        lag_ns: The longest that the event loop was late.
        cpu_seconds: CPU time of the process.
        waited_seconds: How long it could have run, but others had the CPU.
        failure: Why there will be no more load; empty if there will.
    """

    number: int
    latencies: list[dict[int, int]]
    late: dict[int, int]
    errors: dict[str, int]
    in_flight: int
    lag_ns: int
    cpu_seconds: float
    waited_seconds: float
    failure: str = ""


class Done(Line, frozen=True, kw_only=True):
    """The load has ended.

    Attributes:
        unanswered: Calls that were not answered in time.
    """

    unanswered: int


class Payload(msgspec.Struct, frozen=True):
    """The requests, sent in turns.

    Attributes:
        bodies: Serialized.
        models: For each, which model it asks.
        model_count: How many there are.
    """

    bodies: list[bytes]
    models: list[int]
    model_count: int


Command = Drive | Stop
Answer = Ready | Interval | Done
