"""What a model's configuration says of its tensors, against what the engine found in the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from predictd.engines.api import DType, Engine, ModelLoadError, Signature, TensorSpec
from predictd.server.config.labels import LabelsError, read_labels
from predictd.server.config.lane import LaneConfig
from predictd.server.config.model_config import TensorConfig, reshaped
from predictd.server.worker.reshape import Reshape, ReshapedEngine
from predictd.server.worker.selecting import SelectingEngine


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor as clients see it, and how the model does where that differs."""

    spec: TensorSpec
    reshape: Reshape | None = None

    @property
    def batches(self) -> bool:
        """The first dimension may vary, and is the same one on both sides."""
        model = self.spec.shape if self.reshape is None else self.reshape.model
        return self.spec.shape[:1] == (-1,) and model[:1] == (-1,)


def as_declared(engine: Engine, config: LaneConfig) -> tuple[Engine, Signature]:
    """The engine and its signature as clients see them.

    Raises:
        ModelLoadError: The configuration contradicts the model; one line that names the file and the field.
    """
    found = engine.signature
    inputs = _tensors("input", found.inputs, config.inputs, config.origins.get("inputs", config.model))
    outputs = _tensors("output", found.outputs, config.outputs, config.origins.get("outputs", config.model))
    signature = dataclasses.replace(
        found,
        inputs=tuple(tensor.spec for tensor in inputs),
        outputs=tuple(tensor.spec for tensor in outputs),
        batches=found.batches and all(tensor.batches for tensor in (*inputs, *outputs)),
    )
    if any(tensor.reshape for tensor in (*inputs, *outputs)):
        engine = ReshapedEngine(
            engine, signature, [tensor.reshape for tensor in inputs], [tensor.reshape for tensor in outputs]
        )
    if config.served_outputs and any(spec.name not in config.served_outputs for spec in signature.outputs):
        engine = SelectingEngine(engine, signature, config.served_outputs)
        signature = engine.signature
    return engine, signature


def declared_specs(tensors: Sequence[TensorConfig]) -> tuple[TensorSpec, ...]:
    """Tensors as the model sees them, of which the configuration says both dtype and shape."""
    return tuple(
        TensorSpec(tensor.name, DType[tensor.dtype], shape, tensor.optional)
        for tensor in tensors
        for shape in [tensor.shape if tensor.model_shape is None else tensor.model_shape]
        if tensor.dtype is not None and shape is not None
    )


def label_digests(config: LaneConfig) -> dict[str, str]:
    """Read the labels files; a digest of each by the output's name.

    Raises:
        ModelLoadError: One cannot be used; one line that names it.
    """
    digests = {}
    for output in config.outputs:
        if output.labels_file is None:
            continue
        try:
            digests[output.name] = read_labels(output.labels_file).digest
        except OSError as error:
            reason = str(error.strerror or error).lower()
            raise ModelLoadError(
                f"{config.origins.get('outputs', config.model)}: labels file of output {output.name!r}: "
                f"{output.labels_file}: {reason}"
            ) from error
        except LabelsError as error:
            raise ModelLoadError(f"{output.labels_file}: {error}") from error
    return digests


def _tensors(
    kind: str, specs: Sequence[TensorSpec], declared: Sequence[TensorConfig], origin: str
) -> list[_Tensor]:
    by_name = {tensor.name: tensor for tensor in declared}
    for name in sorted(by_name.keys() - {spec.name for spec in specs}):
        known = ", ".join(repr(spec.name) for spec in specs) or "none"
        raise ModelLoadError(f"{origin}: {kind} {name!r}: the model has no such {kind}; it has {known}")
    return [
        _tensor(f"{origin}: {kind} {spec.name!r}", spec, by_name[spec.name])
        if spec.name in by_name
        else _Tensor(spec)
        for spec in specs
    ]


def _tensor(place: str, spec: TensorSpec, said: TensorConfig) -> _Tensor:
    if said.dtype is not None and said.dtype != spec.dtype.name:
        raise ModelLoadError(f"{place}: data_type is {said.dtype}, but the model has {spec.dtype.name}")
    if said.shape is None:
        return _Tensor(spec)
    model, field = (said.shape, "dims") if said.model_shape is None else (said.model_shape, "reshape")
    if not _agree(model, spec.shape):
        raise ModelLoadError(
            f"{place}: with its {field} the shape is {list(model)}, but the model has {list(spec.shape)}"
        )
    # What the model knows is known to clients as well, and the other way round.
    exact = tuple(max(sizes) for sizes in zip(model, spec.shape, strict=True))
    shape = reshaped(exact, model, said.shape)
    reshape = None if said.model_shape is None else Reshape(client=shape, model=exact)
    return _Tensor(dataclasses.replace(spec, shape=shape), reshape)


def _agree(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Equal but for dimensions that may vary on either side."""
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))
