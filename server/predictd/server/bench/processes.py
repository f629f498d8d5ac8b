"""The parent's side of the processes of the load generator."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence

import msgspec

from predictd.server.bench.messages import Answer, Command, Done, Interval, Ready, Stop
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.line_process import LineProcess, LineProcesses

_MODULE = "predictd.server.bench.generator"
_NAME = "a process of the load generator"
_START_SECONDS = 60.0
_DRAIN_SECONDS = 10.0
_DECODER: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


class Generators(LineProcesses[Answer]):
    """Processes that live over all measurements.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, _MODULE, _NAME, _DECODER.decode)
        try:
            self._await(lambda answer: isinstance(answer, Ready), _START_SECONDS)
        except BaseException:
            self.close()
            raise

    def drive(
        self, commands: Sequence[Command], enough: Callable[[Interval], bool], seconds_max: float
    ) -> list[Done]:
        """Put load on until there is enough of it.

        Args:
            commands: One for each process that takes part.
            enough: Told of each interval of each process; says whether to end.
            seconds_max: How long an interval may take to come.

        Returns:
            How each of them ended.
        """
        used = self._processes[: len(commands)]
        for process, command in zip(used, commands, strict=True):
            process.tell(command)
        left, done = set(used), []
        stopping = False
        while left:
            for process, answer in _next(left, seconds_max + _DRAIN_SECONDS * stopping):
                if isinstance(answer, Done):
                    done.append(answer)
                    left.discard(process)
                elif isinstance(answer, Interval) and not stopping and enough(answer):
                    stopping = True
                    for each in used:
                        each.tell(Stop(drain_seconds=_DRAIN_SECONDS))
        return done

    def _await(self, wanted: Callable[[Answer], bool], seconds: float) -> None:
        left = set(self._processes)
        while left:
            for process, answer in _next(left, seconds):
                if wanted(answer):
                    left.discard(process)


def _next(among: set[LineProcess[Answer]], seconds: float) -> list[tuple[LineProcess[Answer], Answer]]:
    readable = select.select([each.descriptor for each in among], [], [], seconds)[0]
    if not readable:
        raise MeasureError(f"{_NAME} said nothing for {seconds:.0f} s")
    talking = [each for each in among if each.descriptor in readable]
    return [(process, answer) for process in talking for answer in process.heard()]
