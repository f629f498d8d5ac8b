"""What both the daemon's settings and a model.toml may say: the same values are refused in the same words."""

from __future__ import annotations

from predictd.server.config.units import choice, duration, integer, size

SECOND = 10**9
HOUR = 3600 * SECOND
INT32 = 2**31 - 1

COUNT = integer(1, 1024)
ROWS = integer(1, INT32)
DELAY = duration(0, 60 * SECOND)
RUN_TIMEOUT = duration(SECOND, 24 * HOUR)
QUEUE_SIZE = integer(1, 2**20)
QUEUE_BYTES = size(0, 2**50)
DEADLINE = duration(0, 24 * HOUR)
ALLOCATOR = choice("glibc", "jemalloc", "tcmalloc")
WHILE_BUILDING = choice("none", "onnxruntime")
