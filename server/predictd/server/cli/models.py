"""`predictd models`: what a daemon serves."""

from __future__ import annotations

import json

import click

from predictd.server.cli import show
from predictd.server.cli.remote import Target, connect, daemon_options, fetch_models, json_option


@click.command
@daemon_options
@json_option
def models(target: Target, as_json: bool) -> None:
    """List the models that a daemon serves, with their versions, states and signatures."""
    with connect(target) as client:
        served = fetch_models(client, target)
    click.echo(json.dumps(show.models_data(served)) if as_json else show.models_text(served))
