"""`predictd demo`: serve a real model, and say how to ask it."""

from __future__ import annotations

import functools
import shlex
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predictd.server.cli.magika_package import MODEL, MagikaError, model_file
from predictd.server.cli.options import settings_from
from predictd.server.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT = Settings()


@click.command
@click.option(
    "--grpc",
    metavar="HOST:PORT",
    help=f"Where gRPC listens.  [env var: PREDICTD_GRPC; default: {_DEFAULT.grpc}]",
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    help=f"Where the status page and /metrics listen.  [env var: PREDICTD_HTTP; default: {_DEFAULT.http}]",
)
def demo(grpc: str | None, http: str | None) -> int:
    """Serve Magika's file-type model until SIGTERM, and print a command that asks it about a real file."""
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    try:
        model = model_file()
    except MagikaError as error:
        raise click.ClickException(str(error)) from error
    # Only now: wrong usage must not wait for the supervisor's imports.
    from predictd.server.supervise.daemon import run

    with tempfile.TemporaryDirectory(prefix="predictd-demo-") as folder:
        # A model is called what its file is called, and Magika's file is called model.onnx.
        link = Path(folder, f"{MODEL}.onnx")
        link.symlink_to(model)
        settings = settings_from({"paths": (str(link),), "grpc": grpc, "http": http})
        command = own_command(Path(sysconfig.get_path("scripts"), "predictd"), Path.cwd())
        return run(settings, functools.partial(_announce, command))


def _announce(command: str, addresses: Mapping[str, str]) -> None:
    click.echo(instructions(command, addresses["grpc"], addresses["http"], example_file(Path.cwd())))


def instructions(command: str, grpc: str, http: str, file: str) -> str:
    """What to type next, for a daemon at these addresses."""
    option = "" if grpc == str(_DEFAULT.grpc) else f" --grpc {shlex.quote(grpc)}"
    return "\n".join(
        (
            "The demo is ready. In another terminal, ask its model what kind of file this is:",
            "",
            f"    {command} identify {shlex.quote(file)}{option}",
            "",
            "See what is served, and the metrics:",
            "",
            f"    {command} models{option}",
            f"    curl {shlex.quote(f'http://{http}/metrics')}",
            "",
        )
    )


def own_command(script: Path, folder: Path) -> str:
    """How a shell in this folder calls this very installation: by name only if that finds it."""
    found = shutil.which("predictd")
    if script.is_relative_to(folder):
        return shlex.quote(str(script.relative_to(folder)))
    if not script.exists() or (found is not None and Path(found).samefile(script)):
        return "predictd"
    return shlex.quote(str(script))


def example_file(folder: Path) -> str:
    """A real file to ask about: the folder's README, else this module."""
    return "README.md" if (folder / "README.md").is_file() else __file__
