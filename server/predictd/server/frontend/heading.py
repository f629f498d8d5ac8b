"""What a request is for, as far as that is known before it is parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

# Metadata by which a client can tell what its request is for before any of it is sent.
MODEL_KEY = "predictd-model"
PRIORITY_KEY = "predictd-priority"

_PRIORITY_DIGITS_MAX = 9


@dataclass(frozen=True, slots=True)
class Heading:
    """What a request is for.

    Attributes:
        model: Name; empty where it is not known.
        version: A version number, or None.
        label: A label, or None.
        priority: As in an InferRequest; None where it is not known.
        size_bytes: So many bytes of tensors at least.
        id: The request's own; empty where its protocol has none.
    """

    model: str
    version: int | None = None
    label: str | None = None
    priority: int | None = 0
    size_bytes: int = 0
    id: str = ""


# Reads the heading from a request's bytes; None if it cannot be read that way.
Read: TypeAlias = Callable[[bytes], Heading | None]


def from_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> Heading:
    """What the metadata of a call say of its request. They decide nothing but whether it is worth receiving."""
    model, priority = "", None
    for key, value in metadata or ():
        if key == MODEL_KEY and isinstance(value, str):
            # Who names the model this way names the priority too, if there is one to name.
            model, priority = value, priority or 0
        elif key == PRIORITY_KEY and isinstance(value, str):
            known = value.isascii() and value.isdigit() and len(value) <= _PRIORITY_DIGITS_MAX
            priority = int(value) if known else None
    return Heading(model, priority=priority)
