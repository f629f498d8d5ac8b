"""`predictd check`: what is wrong with models and their configuration, before anything is served."""

from __future__ import annotations

from pathlib import Path

import click

from predictd.server.config.units import utf8_path


@click.command
@click.option(
    "--linked-dir",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A folder that links among the models may lead into, as of predictd serve. May be repeated.",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
def check(paths: tuple[Path, ...], linked_dir: tuple[Path, ...]) -> int:
    """Say all that is wrong with models, without loading them.

    PATH is a model file, a model's folder, a repository of these, or a models.config of
    TensorFlow Serving. Each line names file, line, and what to do. The exit status is 1 if
    something would not be served.
    """
    try:
        for path in (*paths, *linked_dir):
            utf8_path(str(path))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    # Only now: the help must not wait for NumPy.
    from predictd.server.repository import check as repository

    findings = repository.check(paths, linked_dir)
    for finding in findings:
        click.echo(finding)
    errors = sum(finding.severity == "error" for finding in findings)
    click.echo(f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}", err=True)
    return 1 if errors else 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
