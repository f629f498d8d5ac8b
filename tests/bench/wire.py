"""The load generator of `predictd bench`, driven by a tally."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from predictd.server.bench.dialects import bare
from predictd.server.bench.loops import ClosedLoop

if TYPE_CHECKING:
    from tests.bench.tally import Tally

_DRAIN_SECONDS = 10.0


async def drive(target: str, method: str, connections: int, in_flight: int, tally: Tally) -> None:
    """Keep `in_flight` calls going on each connection until the window ends and the last is answered."""
    loop = ClosedLoop(target, bare(method), tally.payload.bodies, tally, [in_flight] * connections)
    try:
        await asyncio.wait_for(loop.finished, tally.remaining_seconds() + _DRAIN_SECONDS)
    except TimeoutError:
        tally.failed(f"{loop.in_flight} calls not answered {_DRAIN_SECONDS:.0f} s after the end")
    except ConnectionError as error:
        tally.failed(str(error))
    finally:
        loop.close()
