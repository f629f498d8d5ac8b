"""Run a model over many inputs, in order and pipelined: `python streaming.py [HOST:PORT]`."""

import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from predictd.client import Client, PredictdError

target = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"


def rows() -> Iterator[npt.NDArray[np.float32]]:
    """More than one would want in memory; they are taken as they are answered."""
    for number in range(1000):
        yield np.full((1, 3), number, np.float32)


total = 0.0
with Client(target) as client:
    for answer in client.predict_many("double", rows(), in_flight=32):
        # One that fails is an error in its place, and the others go on.
        if isinstance(answer, PredictdError):
            print("failed:", answer)
        else:
            total += float(answer.outputs["y"].sum())
print("sum of all:", total)
