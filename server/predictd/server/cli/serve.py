"""`predictd serve`: the daemon."""

from __future__ import annotations

import sys

import click

from predictd.server.cli.options import SETTINGS_EPILOG, settings_from, settings_options


@click.command(epilog=SETTINGS_EPILOG)
@settings_options
@click.pass_context
def serve(ctx: click.Context, /, **flags: object) -> int:
    """Serve models over gRPC until SIGTERM.

    PATH is an .onnx or .xml file, a model's folder (VERSION/model.onnx), or a repository of these. Of
    a model's versions the highest is served.
    """
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    settings = settings_from(flags)
    if not settings.paths:
        raise click.UsageError("no PATH: give a model file, a model's folder or a repository", ctx=ctx)
    for path in (*settings.paths, *settings.linked_dir):
        try:
            path.stat()
        except OSError as error:
            raise click.UsageError(f"{path}: {str(error.strerror).lower()}", ctx=ctx) from error
    # Only now: other commands and wrong usage must not wait for the supervisor's imports.
    from predictd.server.supervise.daemon import run

    return run(settings)
