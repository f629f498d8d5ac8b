"""All processes of one model that is measured: as many as it has workers, loaded and run at the same time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from predictd.engines.api import Array
from predictd.server.measure.engine_process import EngineProcess, MeasureError
from predictd.server.measure.inputs import signature_of, write_inputs
from predictd.server.measure.messages import (
    Answer,
    Answered,
    Profile,
    Profiled,
    Stages,
    Take,
    Taken,
    Time,
    Timed,
)
from predictd.server.measure.subject import Subject

if TYPE_CHECKING:
    from types import TracebackType

    import numpy.typing as npt

# In a profile every run of every node is an entry.
PROFILED_RUNS_MAX = 200


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured at one go.

    Attributes:
        runs: Of all processes.
        runs_per_second: Of all processes together.
        latencies_ns: Of each run.
        cpus: That were busy on average.
        stages: Of an engine that knows where the time of a run goes.
    """

    runs: int
    runs_per_second: float
    latencies_ns: npt.NDArray[Any]
    cpus: float
    stages: Stages | None


class Engines:
    """The processes of a model. Use it as a context manager, which ends them.

    Attributes:
        label: Of the model, for messages.
        signature: Of the model, as the engine has it.
        engine: The runtime's name.
        load_seconds: Of the process that took longest.

    Raises:
        MeasureError: The model cannot be loaded.
    """

    def __init__(self, subject: Subject, *, profile: bool = False) -> None:
        self.label = subject.label
        with ExitStack() as stack:
            self._scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="predictd-bench-")))
            self._processes = [
                stack.enter_context(
                    EngineProcess(subject.label, subject.lane, plan, subject.load_limit_seconds)
                )
                for plan in subject.plans
            ]
            for process in self._processes:
                process.begin_load(
                    len(self._processes), subject.cache, subject.cache_limit_bytes, profile=profile
                )
            loaded = [process.end_load() for process in self._processes]
            self._stack = stack.pop_all()
        self.signature = signature_of(loaded[0].signature)
        self.engine = loaded[0].signature.engine
        self.load_seconds = max(each.load_seconds for each in loaded)
        self._profiles = loaded[0].profiles

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def take(self, inputs: Sequence[Array | None]) -> None:
        """Have these inputs for all runs that follow, and run them once.

        Raises:
            MeasureError: The model cannot be run with them.
        """
        path = self._scratch / "inputs.npz"
        write_inputs(path, inputs)
        for process in self._processes:
            process.tell(Take(path=str(path)))
        for process in self._processes:
            process.hear(Taken)

    def time(self, seconds: float, *, most_runs: int = 0, least_runs: int = 1) -> Window:
        """Run for so long, or so often, in all processes at the same time.

        Args:
            seconds: 0 for as many runs as `most_runs` says.
            most_runs: Of each process; 0 sets no limit.
            least_runs: Of each process.
        """
        files = [self._scratch / f"{number}.npy" for number in range(len(self._processes))]
        for process, file in zip(self._processes, files, strict=True):
            process.tell(
                Time(seconds=seconds, most_runs=most_runs, least_runs=least_runs, latencies=str(file))
            )
        timed = [process.hear(Timed, seconds) for process in self._processes]
        return Window(
            sum(each.runs for each in timed),
            sum(each.runs / each.seconds for each in timed),
            np.concatenate([np.load(file) for file in files]),
            sum(each.cpu_seconds / each.seconds for each in timed),
            timed[0].stages,
        )

    def answer(self) -> dict[str, Array]:
        """The outputs of the first process for the inputs that it has, by name; BF16 as float32."""
        path = self._scratch / "outputs.npz"
        self._processes[0].ask(Answer(path=str(path)), Answered)
        with np.load(path, allow_pickle=False) as file:
            return {spec.name: file[str(number)] for number, spec in enumerate(self.signature.outputs)}

    def profile(self, seconds: float) -> Profiled:
        """Which layers take the time. Nothing is run afterwards.

        Raises:
            MeasureError: The engine does not tell.
        """
        if not self._profiles:
            raise MeasureError(
                f"{self.label}: engine {self.engine} does not tell the time of its layers: leave --profile out"
            )
        command = Profile(seconds=seconds, most_runs=PROFILED_RUNS_MAX)
        return self._processes[0].ask(command, Profiled, seconds)
