"""Tensors whose rows can be told apart."""

from __future__ import annotations

import numpy as np

from predictd.engines.api import Array

# 32 KiB a row, beyond the limit of indexed copies.
LARGE_WIDTH = 8192


def rows_of(start: int, rows: int = 1, width: int = 3) -> Array:
    """FP32 rows that no other start has."""
    return (np.arange(rows * width, dtype=np.float32) + 1000 * start).reshape(rows, width)
