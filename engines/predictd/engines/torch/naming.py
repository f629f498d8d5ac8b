"""Which argument or result of a model a configured name means. Pure.

The rules are those of Triton's PyTorch backend: the names of the model; or `<anything>__<index>` for all; or the
order of the configuration.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from predictd.engines.api import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Sequence

_INDEXED = re.compile(r".*__([0-9]{1,4})")


def places(kind: str, names: Sequence[str], known: Sequence[str]) -> list[int]:
    """The place of each configured name among what the model has.

    Args:
        kind: "input" or "output", for messages.
        names: As the configuration has them.
        known: As the model calls them, in its order.

    Raises:
        ModelLoadError: A name means nothing, or two mean the same.
    """
    if all(name in known for name in names):
        return [known.index(name) for name in names]
    indices = indexed(names)
    found = list(range(len(names))) if indices is None else indices
    for name, at in zip(names, found, strict=True):
        if at >= len(known):
            has = ", ".join(map(repr, known)) or "none"
            raise ModelLoadError(f"{kind} {name!r}: the model has no such {kind}; it has {has}")
    if len(set(found)) < len(found):
        raise ModelLoadError(f"two {kind}s have the same number in {', '.join(map(repr, names))}")
    return found


def indexed(names: Sequence[str]) -> list[int] | None:
    """The numbers of names such as INPUT__0; None where one has none."""
    matches = [_INDEXED.fullmatch(name) for name in names]
    return [int(match[1]) for match in matches if match] if all(matches) else None


def numbered(prefix: str, count: int) -> tuple[str, ...]:
    """Names for what has none."""
    return tuple(f"{prefix}__{at}" for at in range(count))
