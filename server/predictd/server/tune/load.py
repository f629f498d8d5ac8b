"""A process of callers: takes one command a line, puts load on a daemon, answers with one line.

It has a process of its own so that gRPC is never in the one that starts daemons, and may have several, as one
Python process cannot saturate a large machine.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop

from predictd.client import NO_RETRIES, AsyncClient, PredictdError
from predictd.server.tune.messages import Answer, Ask, Asked, Command, Drive, Driven, Refused
from predictd.server.tune.requests import RequestError, made_up, recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from predictd.client import ModelVersion
    from predictd.client.tensors import TensorLike

# Also for a first answer of a large model on a busy machine.
_ANSWER_SECONDS = 120.0


class _Callers:
    """A connection and what is sent over it."""

    def __init__(self, client: AsyncClient, model: str, inputs: Mapping[str, TensorLike]) -> None:
        self._client = client
        self._model = model
        self._inputs = inputs

    async def call(self) -> None:
        await self._client.predict(self._model, self._inputs, deadline=_ANSWER_SECONDS)

    async def drive(self, command: Drive) -> Driven:
        latencies: list[int] = []
        ends: list[int] = []

        def over(now_ns: int) -> bool:
            enough = len(latencies) >= command.answers
            return now_ns >= command.latest_ns or (now_ns >= command.end_ns and enough)

        async def caller() -> None:
            while not over(started := time.monotonic_ns()):
                await self.call()
                now = time.monotonic_ns()
                wanted = now <= command.end_ns or len(latencies) < command.answers
                if now >= command.begin_ns and wanted:
                    latencies.append(now - started)
                    ends.append(now - command.begin_ns)

        await asyncio.gather(*(caller() for _ in range(command.callers)))
        length_ns = max(command.end_ns - command.begin_ns, *ends, 1)
        return Driven(length_ns / 1e9, latencies, ends)

    async def close(self) -> None:
        await self._client.close()


async def _ask(command: Ask) -> tuple[_Callers, Asked]:
    client = AsyncClient(command.target, deadline=_ANSWER_SECONDS, retries=NO_RETRIES)
    try:
        model = await client.model(command.model)
        version = next(each for each in model.versions if each.version == model.default_version)
        callers = _Callers(client, command.model, _inputs(version, command.input_file))
        await callers.call()
    except BaseException:
        await client.close()
        raise
    return callers, Asked(batches=version.max_batch_size > 0)


def _inputs(version: ModelVersion, input_file: str) -> Mapping[str, TensorLike]:
    if input_file:
        return recorded(Path(input_file), version.inputs)
    return made_up(version.inputs, batches=version.max_batch_size > 0)


def _say(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Serve commands until standard input ends."""
    callers: _Callers | None = None
    decoder = msgspec.json.Decoder(Command)
    # One loop for all commands: grpc.aio binds itself to the first one.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            command = decoder.decode(line)
            try:
                if isinstance(command, Ask):
                    if callers is not None:
                        runner.run(callers.close())
                        callers = None
                    callers, asked = runner.run(_ask(command))
                    gc.collect()
                    gc.freeze()
                    _say(asked)
                elif callers is None:
                    _say(Refused("no daemon answers"))
                else:
                    _say(runner.run(callers.drive(command)))
            except RequestError as error:
                _say(Refused(str(error), by_request=True))
            except (PredictdError, TypeError, ValueError) as error:
                _say(Refused(" ".join(str(error).split())))


if __name__ == "__main__":
    main()
