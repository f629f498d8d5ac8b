"""Which models share worker processes. Pure.

A pool is some identical workers that host the same models. A model in a pool of its own takes nobody with it
when it crashes; but a process for each of several hundred small models costs more than they do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SHARED = "shared"

# A longer name would not be readable in the process list, beside "predictd: worker".
_NAME_LENGTH = 64
_DIGEST_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Placeable:
    """What placement must know about a model.

    Attributes:
        name: The model's name, unique among those placed.
        pool_key: The pool that its model.toml names, at most 64 characters.
        instances: The number of workers that its model.toml asks for.
    """

    name: str
    pool_key: str | None = None
    instances: int | None = None


def place(models: Sequence[Placeable], mode: str, cores: int) -> Mapping[str, tuple[str, ...]]:
    """Divide the models among pools.

    A model that names a pool is in it, whatever the mode. Of the others, `per-model` gives each a pool of its
    own, `shared` gives them one pool, and `auto` gives each its own up to max(8, 2 x cores) models.

    Returns:
        Names of pools, each with its models in the order given.
    """
    own = mode == "per-model" or (mode == "auto" and len(models) <= max(8, 2 * cores))
    taken = {model.pool_key for model in models}
    pools: dict[str, list[str]] = {}
    for model in models:
        pool = model.pool_key or (own_pool(model.name, taken) if own else SHARED)
        pools.setdefault(pool, []).append(model.name)
    return {pool: tuple(names) for pool, names in pools.items()}


def own_pool(name: str, taken: Iterable[str | None] = ()) -> str:
    """The name of a model's own pool: the model's, or one with a "~", which no model's name can have.

    Args:
        name: The model's name.
        taken: Names that models have asked their common pools to be called.
    """
    if len(name) > _NAME_LENGTH:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
        return f"{name[: _NAME_LENGTH - _DIGEST_LENGTH - 1]}~{digest}"
    return f"{name}~own" if name in taken or name == SHARED else name


def pool_instances(models: Iterable[Placeable], default: int) -> int:
    """The workers of a pool: as many as the most demanding of its models asks for."""
    return max(default if model.instances is None else model.instances for model in models)
