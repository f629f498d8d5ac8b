"""`predictd label`: a name for a version of a model."""

from __future__ import annotations

import click

from predictd.server.cli.remote import Target, connect, daemon_options, reaching

unready_option = click.option(
    "--allow-unready", is_flag=True, help="Also a version that is not ready; it gets requests once it is."
)


@click.command
@click.argument("name")
@click.argument("label")
@click.argument("version", type=click.IntRange(min=1), required=False)
@click.option(
    "--remove", is_flag=True, help="Take back what was set; what the model's configuration says holds."
)
@unready_option
@daemon_options
def label(
    name: str, label: str, version: int | None, *, remove: bool, allow_unready: bool, target: Target
) -> None:
    """Give VERSION of the model NAME the name LABEL, whatever it named before.

    Requests follow at once, and none is lost. The label outlives the daemon if that has a
    --state-dir.
    """
    if remove == (version is not None):
        raise click.UsageError("give a VERSION, or --remove", ctx=click.get_current_context())
    with connect(target) as client, reaching(target):
        client.set_label(name, label, version, allow_unready=allow_unready)
