"""What `predictd build` builds: the model as `predictd serve` would take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from predictd.engines.api import TensorSpec
from predictd.engines.tensorrt.build_options import (
    BuildOptions,
    HardwareCompatibility,
    Precision,
    batch_sizes,
    options_from_parameters,
)
from predictd.engines.tensorrt.profiles import NamedShapes, ShapeWishes
from predictd.engines.traits import engine_traits
from predictd.server.config.model_config import ModelConfig
from predictd.server.config.settings import Settings
from predictd.server.repository.models import served_versions
from predictd.server.repository.scan import scan
from predictd.server.worker.declared import declared_specs

_PLAN_SUFFIXES = engine_traits("tensorrt").suffixes
_ENUMS = {"precision": Precision, "hardware_compatibility": HardwareCompatibility}
_ATTRIBUTES = {"bindings": "flavour"}


@dataclass(frozen=True, slots=True)
class ModelToBuild:
    """A model, and what its configuration says.

    Attributes:
        path: The ONNX file.
        config: Of the model.
        settings: Of the daemon.
    """

    path: Path
    config: ModelConfig
    settings: Settings

    @property
    def declared(self) -> tuple[TensorSpec, ...]:
        """What the configuration says of inputs."""
        return declared_specs(self.config.inputs)

    def options(self, said: Mapping[str, object]) -> BuildOptions:
        """The options of the build: what was said on the command line, else in the configuration.

        Raises:
            BuildError: The configuration has a value that it cannot have.
        """
        config = self.config
        most = self.settings.max_batch_size if config.max_batch_size is None else config.max_batch_size
        sizes = batch_sizes(most, config.preferred_batch_sizes)
        below = options_from_parameters(config.parameters, sizes)
        above = {
            _ATTRIBUTES.get(name, name): _ENUMS[name](str(value)) if name in _ENUMS else value
            for name, value in said.items()
            if value not in (None, False, ())
        }
        if "batch_sizes" in above:
            above["batch_sizes"] = tuple(sorted(set(said["batch_sizes"])))  # type: ignore[call-overload] # ints, by click
        return replace(below, **above)  # type: ignore[arg-type] # as click read them


def model_to_build(path: Path, settings: Settings) -> ModelToBuild:
    """Find a model where the command line says it is.

    Raises:
        click.ClickException: There is none, more than one, or another kind of file.
    """
    found = scan((path,))
    for problem in found.problems:
        raise click.ClickException(str(problem))
    versions = [(model, version) for model in found.models for version in served_versions(model)]
    if len(found.models) != 1 or not versions:
        raise click.ClickException(f"{path}: there are {len(found.models)} models; name the one to build")
    model, version = max(versions, key=lambda pair: pair[1].version)
    if version.path.suffix.lower() != ".onnx":
        raise click.ClickException(f"{version.path}: a plan is built of an .onnx file")
    return ModelToBuild(version.path, model.file, settings)


def check_output(output: Path) -> None:
    """Raise click.ClickException where no plan should go: over a model, or where nobody would take it for one.

    A build may take minutes, so this is said before.
    """
    if output.suffix.lower() not in _PLAN_SUFFIXES:
        raise click.ClickException(f"{output}: a plan is a {' or '.join(_PLAN_SUFFIXES)} file")
    if not output.parent.is_dir():
        raise click.ClickException(f"{output.parent}: no such folder")


def with_shapes(options: BuildOptions, shapes: Sequence[NamedShapes]) -> BuildOptions:
    """The options with the shapes of the command line, if it names any."""
    return replace(options, wishes=ShapeWishes(*shapes)) if any(shapes) else options
