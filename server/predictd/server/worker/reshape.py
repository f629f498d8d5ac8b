"""An engine whose clients see some tensors in another shape than the model does: the same bytes, not copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from predictd.engines.api import Array, Engine, EngineError, Signature
from predictd.server.config.model_config import reshaped


@dataclass(frozen=True, slots=True)
class Reshape:
    """A tensor's shape on both sides: as many -1 in each, for the same dimensions in the same order."""

    client: tuple[int, ...]
    model: tuple[int, ...]


class ReshapedEngine:
    """Wraps an engine; only for models that ask for it, so that the others pay nothing.

    Args:
        engine: Runs the model.
        signature: As clients see it.
        inputs: For each input, None where both sides see the same.
        outputs: The same for outputs.
    """

    def __init__(
        self,
        engine: Engine,
        signature: Signature,
        inputs: Sequence[Reshape | None],
        outputs: Sequence[Reshape | None],
    ) -> None:
        self.signature = signature
        self.name = engine.name
        self._engine = engine
        self._inputs = inputs
        self._outputs = outputs

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute one batch. See `predictd.engines.api.Engine`."""
        given = list(map(_to_model, inputs, self._inputs))
        own = [None] * len(self._outputs) if out is None else out
        buffers = None if out is None else list(map(_to_model, out, self._outputs))
        results = self._engine.run(given, buffers)
        return [
            self._result(at, result, own[at], buffers[at] if buffers else None)
            for at, result in enumerate(results)
        ]

    def close(self) -> None:
        """Release the model."""
        self._engine.close()

    def _result(self, at: int, result: Array, own: Array | None, buffer: Array | None) -> Array:
        reshape = self._outputs[at]
        if reshape is None:
            return result
        if own is not None and result is buffer:
            return own
        try:
            return result.reshape(reshaped(result.shape, reshape.model, reshape.client))
        except ValueError:
            name = self.signature.outputs[at].name
            raise EngineError(
                f"output '{name}' has shape {list(result.shape)}; its configuration says {list(reshape.model)}"
            ) from None


def _to_model(array: Array | None, reshape: Reshape | None) -> Array | None:
    if array is None or reshape is None:
        return array
    return array.reshape(reshaped(array.shape, reshape.client, reshape.model))
