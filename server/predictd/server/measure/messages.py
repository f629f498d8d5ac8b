"""What is said to a process that runs one engine, and what it answers: one line of JSON each."""

from __future__ import annotations

import msgspec

from predictd.server.config.lane import LaneConfig, LaneSignature


class Line(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Base of all of them; the class name is the tag on the wire."""


class Load(Line, frozen=True, kw_only=True):
    """Said first. Answered by Loaded.

    Attributes:
        lane: What a worker would be told.
        instances: Processes that load the same.
        cache_directory: For what can be made again; empty to keep nothing.
        cache_limit_bytes: Of that folder.
        profile: To learn which layers take the time.
    """

    lane: LaneConfig
    instances: int
    cache_directory: str = ""
    cache_limit_bytes: int = 0
    profile: bool = False


class Loaded(Line, frozen=True, kw_only=True):
    """The model can run.

    Attributes:
        signature: As the engine has it.
        load_seconds: How long it took.
        profiles: The engine can say which layers take the time.
    """

    signature: LaneSignature
    load_seconds: float
    profiles: bool


class Take(Line, frozen=True, kw_only=True):
    """Inputs for all runs that follow, and one run with them. Answered by Taken.

    Attributes:
        path: An .npz file with an array for each input, named by its number; optional ones may be absent.
    """

    path: str


class Taken(Line, frozen=True, kw_only=True):
    """The inputs were run once."""


class Time(Line, frozen=True, kw_only=True):
    """Run again and again. Answered by Timed.

    Attributes:
        seconds: For so long; 0 for as many runs as below.
        most_runs: But so often at most; 0 sets no limit.
        least_runs: And so often at least.
        latencies: Where to write what each run took, in nanoseconds, as .npy; empty to forget it.
    """

    seconds: float
    most_runs: int = 0
    least_runs: int = 1
    latencies: str = ""


class Stages(msgspec.Struct, frozen=True):
    """Seconds of a mean run that went into each stage, as `predictd.engines.api.RunTimings` has them."""

    copy_in_seconds: float
    enqueue_seconds: float
    compute_seconds: float
    copy_out_seconds: float


class Timed(Line, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        runs: How many.
        seconds: From the first to the last.
        cpu_seconds: Of the process meanwhile.
        stages: Of an engine that knows them.
    """

    runs: int
    seconds: float
    cpu_seconds: float
    stages: Stages | None = None


class Answer(Line, frozen=True, kw_only=True):
    """Run the inputs once and write the outputs down. Answered by Answered.

    Attributes:
        path: An .npz file to write: an array for each output, named by its number, BF16 as float32.
    """

    path: str


class Answered(Line, frozen=True, kw_only=True):
    """The outputs are there."""


class Profile(Line, frozen=True, kw_only=True):
    """Run for so long and say which layers took the time. Nothing is run afterwards. Answered by Profiled."""

    seconds: float
    most_runs: int


class Layer(msgspec.Struct, frozen=True):
    """See `predictd.engines.api.LayerTime`."""

    name: str
    kind: str
    runs: int
    seconds: float


class Profiled(Line, frozen=True, kw_only=True):
    """The layers that ran, and how many runs of the model there were."""

    layers: list[Layer]
    runs: int


class Failed(Line, frozen=True, kw_only=True):
    """It could not be done; one line."""

    reason: str


Command = Load | Take | Time | Answer | Profile
Reply = Loaded | Taken | Timed | Answered | Profiled | Failed
