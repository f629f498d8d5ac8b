"""`predictd unload`: have a running daemon unload a model."""

from __future__ import annotations

import click

from predictd.server.cli.remote import Target, connect, daemon_options, fetch_models, wait_option


@click.command
@click.argument("name")
@daemon_options
@wait_option
def unload(name: str, target: Target, wait_seconds: float) -> None:
    """Unload the model NAME from a daemon that was started with --model-control explicit.

    Ends once its requests are finished.
    """
    with connect(target) as client:
        # Shows first whether there is a daemon, which may itself say that it cannot do this now.
        fetch_models(client, target)
        client.unload_model(name, deadline=wait_seconds)
    click.echo(f"{name} is unloaded")
