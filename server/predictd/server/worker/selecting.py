"""An engine of whose outputs only some are served: the others are computed with the rest and left where they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from predictd.engines.api import Array, Engine, GivesBack, Signature


class SelectingEngine:
    """Wraps an engine; only for models whose configuration lists their outputs.

    Args:
        engine: Runs the model.
        signature: The engine's, as clients would see all of it.
        served: Names of the outputs that they see; the order is the engine's.
    """

    def __init__(self, engine: Engine, signature: Signature, served: Collection[str]) -> None:
        self._engine = engine
        self._count = len(signature.outputs)
        self._places = [at for at, spec in enumerate(signature.outputs) if spec.name in served]
        self.signature = dataclasses.replace(
            signature, outputs=tuple(signature.outputs[at] for at in self._places)
        )
        self.name = engine.name

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute one batch. See `predictd.engines.api.Engine`."""
        buffers: list[Array | None] | None = None
        if out is not None:
            buffers = [None] * self._count
            for at, buffer in zip(self._places, out, strict=True):
                buffers[at] = buffer
        results = self._engine.run(inputs, buffers)
        return [results[at] for at in self._places]

    def give_back(self) -> None:
        """Give memory back at the end of the next run, where the engine can. See `predictd.engines.api.GivesBack`."""
        if isinstance(self._engine, GivesBack):
            self._engine.give_back()

    def close(self) -> None:
        """Release the model."""
        self._engine.close()
