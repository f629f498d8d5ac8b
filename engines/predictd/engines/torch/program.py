"""What both kinds of archives become: a signature and a function from tensors to tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from predictd.engines.api import Signature

Shape = tuple[int | str, ...]
"""Dimensions, those that vary as the expressions that an exported program has for them."""


@dataclass(frozen=True, slots=True)
class Program:
    """A model that can be run.

    Attributes:
        signature: What it takes and gives.
        call: From one tensor an input, None for one that is absent, to one an output.
        writes_inputs: A run may change its inputs in place.
    """

    signature: Signature
    call: Callable[[Sequence[Any]], list[Any]]
    writes_inputs: bool


def batch_symbol(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> str | None:
    """The symbol that is the first dimension of every input and output and occurs nowhere else. Pure."""
    shapes = [*inputs, *outputs]
    first = {shape[0] if shape else 0 for shape in shapes}
    rows = first.pop() if inputs and len(first) == 1 else 0
    if not isinstance(rows, str) or not rows.isidentifier():
        return None
    rest = (size for shape in shapes for size in shape[1:])
    # A batch by batch matrix, such as pairwise distances, mixes the rows of all requests.
    return None if any(re.search(rf"\b{rows}\b", str(size)) for size in rest) else rows
