"""What a comparison found: Markdown for people, plain data for JSON, a plot."""

from __future__ import annotations

from typing import Any

from predictd.server.optimize.comparison import Comparison


def markdown(comparison: Comparison) -> str:
    """Tables of both models, of their outputs, and the verdict."""
    raise NotImplementedError


def data(comparison: Comparison) -> dict[str, Any]:
    """Everything as JSON has it."""
    raise NotImplementedError


def picture(comparison: Comparison) -> str:
    """Throughput and latency of both, as SVG."""
    raise NotImplementedError
