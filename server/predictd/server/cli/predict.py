"""`predictd predict`: run a model from the shell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from predictd.server.cli import show
from predictd.server.cli.remote import Target, connect, daemon_options, fetch_model, json_option
from predictd.server.cli.values import InputError, read_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from predictd.client import Model, ModelVersion, Prediction
    from predictd.client.tensors import TensorLike

_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]")


@click.command
@click.argument("name")
@click.option(
    "--input",
    "texts",
    multiple=True,
    required=True,
    metavar="NAME=VALUE",
    help="An input: NAME=@FILE.npy, NAME=@FILE.npz:KEY, or inline JSON such as NAME='[[1, 2, 3]]'.",
)
@click.option(
    "--output", "outputs", multiple=True, metavar="NAME", help="An output wanted; without any, all are."
)
@click.option("--version", type=click.IntRange(min=1), help="Ask this version of the model.")
@click.option("--label", help="Ask the version that has this label.")
@daemon_options
@json_option
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also write each output to DIR/<name>.npy.",
)
def predict(
    *,
    name: str,
    texts: Sequence[str],
    outputs: Sequence[str],
    version: int | None,
    label: str | None,
    target: Target,
    as_json: bool,
    save: Path | None,
) -> None:
    """Run the model NAME once and print its outputs."""
    given = _split(texts)
    if version is not None and label is not None:
        raise click.ClickException("--version and --label exclude each other")
    with connect(target) as client:
        served = _choose(fetch_model(client, target, name), version, label)
        inputs = _read(served, given)
        try:
            prediction = client.predict(name, inputs, outputs=outputs, version=version, label=label)
        except (TypeError, ValueError) as error:
            raise click.ClickException(str(error)) from error
    if save is not None:
        _save(prediction, save)
    click.echo(json.dumps(show.prediction_data(prediction)) if as_json else show.prediction_text(prediction))


def _split(texts: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.ClickException(f"--input {text}: write NAME=VALUE")
        if name in given:
            raise click.ClickException(f"input {name!r} is given twice")
        given[name] = value
    return given


def _choose(model: Model, version: int | None, label: str | None) -> ModelVersion:
    """Return the version whose signature the request must fit."""
    if label is not None:
        chosen = [each for each in model.versions if label in each.labels]
        wanted = f"label {label!r}"
    elif version is not None:
        chosen = [each for each in model.versions if each.version == version]
        wanted = f"version {version}"
    else:
        chosen = [each for each in model.versions if each.version == model.default_version]
        wanted = "version that is ready"
    if not chosen:
        there = "; ".join(_standing(each) for each in model.versions) or "none"
        raise click.ClickException(f"model {model.name!r} has no {wanted}; there are: {there}")
    if not chosen[0].inputs:
        raise click.ClickException(f"model {model.name!r} cannot answer: {_standing(chosen[0])}")
    return chosen[0]


def _standing(version: ModelVersion) -> str:
    labels = f" ({', '.join(version.labels)})" if version.labels else ""
    reason = f": {version.reason}" if version.reason else ""
    return f"version {version.version}{labels} {version.state}{reason}"


def _read(version: ModelVersion, given: Mapping[str, str]) -> dict[str, TensorLike]:
    specs = {spec.name: spec for spec in version.inputs}
    for name in given:
        if name not in specs:
            takes = ", ".join(map(show.spec_text, version.inputs))
            raise click.ClickException(f"the model has no input {name!r}; it takes {takes}")
    try:
        return {name: read_value(specs[name], text) for name, text in given.items()}
    except InputError as error:
        raise click.ClickException(str(error)) from error


def _save(prediction: Prediction, folder: Path) -> None:
    paths = {name: folder / (_NOT_IN_FILE_NAMES.sub("_", name) + ".npy") for name in prediction.outputs}
    if len(set(paths.values())) < len(paths):
        raise click.ClickException("two outputs would be saved under one name; ask for one with --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in paths.items():
            np.save(path, _plain(name, prediction.outputs[name]), allow_pickle=False)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Turn strings into fixed-width ones, which need no pickle."""
    if array.dtype != object:
        return array
    if any(element.endswith(b"\0") for element in array.flat):
        raise click.ClickException(f"output {name!r} has strings that end in NUL, which .npy cannot keep")
    return array.astype(np.bytes_)
