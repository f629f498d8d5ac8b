"""Ask a model many times at once: `python asynchronous.py [HOST:PORT]`."""

import asyncio
import sys

import numpy as np

from predictd.client import AsyncClient


async def main(target: str) -> None:
    """Send twenty requests together; the daemon merges them into batches."""
    async with AsyncClient(target) as client:
        rows = [np.full((1, 3), number, np.float32) for number in range(20)]
        predictions = await asyncio.gather(
            *(client.predict("double", {"x": row}, outputs=["y"], deadline=5) for row in rows)
        )
        total = sum(float(prediction.outputs["y"].sum()) for prediction in predictions)
        print("sum of all:", total)


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"))
