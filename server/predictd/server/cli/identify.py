"""`predictd identify`: ask the demo's model what a file is."""

from __future__ import annotations

from pathlib import Path

import click

from predictd.client import NotFoundError
from predictd.server.cli import show
from predictd.server.cli.magika_features import INPUT, OUTPUT, Detector, Verdict, installed
from predictd.server.cli.magika_package import MODEL, MagikaError
from predictd.server.cli.remote import Target, connect, daemon_options, fetch_model

_START = "predictd demo"


@click.command
@click.argument("file", type=click.Path(path_type=Path))
@daemon_options
def identify(file: Path, target: Target) -> None:
    """Ask the model of `predictd demo` what kind of file FILE is."""
    try:
        detector = installed()
    except MagikaError as error:
        raise click.ClickException(str(error)) from error
    try:
        with file.open("rb") as stream:
            features = detector.features(stream)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    if isinstance(features, Verdict):
        click.echo(f"{file}: {features.label} (too short to ask the model)")
        return
    with connect(target) as client:
        try:
            fetch_model(client, target, MODEL, _START)
        except NotFoundError as error:
            raise click.ClickException(
                f"the daemon at {target} does not serve the model {MODEL!r}; {_START} does"
            ) from error
        prediction = client.predict(MODEL, {INPUT: features}, outputs=[OUTPUT])
    verdict = detector.verdict(prediction.outputs[OUTPUT][0])
    timing = prediction.timing
    click.echo(
        f"{file}: {_describe(detector, verdict)}, "
        f"queue {show.duration(timing.queue_seconds)}, compute {show.duration(timing.compute_seconds)}"
    )


def _describe(detector: Detector, verdict: Verdict) -> str:
    if verdict.label == detector.overwrites.get(verdict.guess, verdict.guess):
        return f"{verdict.label}, score {verdict.score:.3f}"
    return f"{verdict.label}, since the guess {verdict.guess} scores only {verdict.score:.3f}"
