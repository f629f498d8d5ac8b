"""`predictd load`: have a running daemon load a model."""

from __future__ import annotations

import json

import click

from predictd.server.cli.remote import Target, connect, daemon_options, fetch_models, wait_option


@click.command
@click.argument("name")
@click.option(
    "--set",
    "config",
    metavar="JSON",
    help="What lies over the model's own configuration, as fields of Triton's ModelConfig: "
    "max_batch_size, dynamic_batching, instance_group, version_policy.",
)
@daemon_options
@wait_option
def load(name: str, config: str | None, target: Target, wait_seconds: float) -> None:
    """Load the model NAME as it is on the daemon's disk now, again if it failed.

    Ends once the model is served. If it cannot be loaded, the reason is printed and what served
    before serves on.
    """
    try:
        above = json.loads(config) if config else {}
    except ValueError as error:
        raise click.UsageError(f"--set: not JSON: {error}") from error
    if not isinstance(above, dict):
        raise click.UsageError("--set: give an object, for example '{\"max_batch_size\": 8}'")
    with connect(target) as client:
        # Shows first whether there is a daemon, which may itself say that it cannot do this now.
        fetch_models(client, target)
        client.load_model(name, config=above, deadline=wait_seconds)
    click.echo(f"{name} is loaded")
