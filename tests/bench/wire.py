"""The load generator of `predictd bench`, driven by a tally."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from predictd.server.bench.dialects import bare
from predictd.server.bench.loops import ClosedLoop, OpenLoop
from predictd.server.bench.schedule import arrivals
from predictd.server.bench.session import timeout
from tests.bench.payload import METHOD

if TYPE_CHECKING:
    from tests.bench.client import Command
    from tests.bench.tally import Tally

_DRAIN_SECONDS = 10.0
_IN_FLIGHT_MAX = 16384


def _loop(command: Command, tally: Tally) -> ClosedLoop | OpenLoop:
    bodies, api = tally.payload.bodies, bare(METHOD)
    if not command.rate:
        shares = [command.in_flight] * command.connections
        return ClosedLoop(command.target, api, bodies, tally, shares)
    times = arrivals("poisson", command.rate, command.start_ns, part=command.part, parts=command.parts)
    deadline = timeout(command.deadline_ns)
    return OpenLoop(command.target, api, bodies, tally, command.connections, times, _IN_FLIGHT_MAX, deadline)


async def drive(command: Command, tally: Tally) -> None:
    """Keep the load up until the window ends and the last call is answered."""
    loop = _loop(command, tally)
    try:
        await asyncio.wait_for(loop.finished, tally.remaining_seconds() + _DRAIN_SECONDS)
    except TimeoutError:
        tally.failed(f"{loop.in_flight} calls not answered {_DRAIN_SECONDS:.0f} s after the end")
    except ConnectionError as error:
        tally.failed(str(error))
    finally:
        loop.close()
