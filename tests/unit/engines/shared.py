"""What tests of several engines need: arrays, the memory of this process, and why a model was refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from predictd.engines.api import Array, DType, Engine, EngineOptions, ModelLoadError


def sample(dtype: DType, shape: Sequence[int]) -> Array:
    """Distinct bit patterns; small enough to be exact in every dtype."""
    values: Array = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 100
    return (values % 2 if dtype is DType.BOOL else values).astype(dtype.numpy)


def memory_bytes(kind: str) -> int:
    """A line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{kind}:"))


def refusal(load: Callable[[Path, EngineOptions], Engine], path: Path, options: EngineOptions) -> str:
    """Why a file is refused, in one line that names it."""
    with pytest.raises(ModelLoadError) as caught:
        load(path, options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")
