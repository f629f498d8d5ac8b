"""`predictd plan`: what `predictd serve` would start, without starting it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predictd.server.cli.options import settings_from, some_settings_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.server.config.settings import Settings
    from predictd.server.repository.models import FoundModel

_SETTINGS = (
    "paths",
    "config",
    "frontend",
    "frontends",
    "instances",
    "threads",
    "pools",
    "allocator",
    "model_control",
    "load_model",
)


@click.command(
    epilog="All other settings come from the environment and the file, as those of predictd serve."
)
@some_settings_options(*_SETTINGS)
@click.option("--explain", is_flag=True, help="Add the reasons for every number of every process.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with all reasons.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="/",
    metavar="DIR",
    help="Plan for the machine whose /proc and /sys lie below this folder.",
)
@click.pass_context
def plan(ctx: click.Context, /, *, explain: bool, as_json: bool, root: Path, **flags: object) -> int:
    """Show which process of the daemon runs on which CPUs, with how many threads, and why.

    PATH is what predictd serve is given; without it the plan is for one model. Nothing is
    loaded or started.
    """
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    if explain and as_json:
        raise click.UsageError("--json has all reasons already: leave --explain out", ctx=ctx)
    settings = settings_from(flags)
    # Only now: wrong usage must not wait for the supervisor's imports.
    from predictd.server.launch import describe
    from predictd.server.supervise.assembly import plan_start, read_planner
    from predictd.server.supervise.sandboxing import SandboxError, sandboxed

    try:
        planner = read_planner(root)
    except ValueError as error:
        raise click.UsageError(str(error), ctx=ctx) from error
    # What was tuned here says nothing of another machine.
    cpus = planner.cores if root == Path("/") else None
    if cpus is not None:
        try:
            planner = sandboxed(planner, settings, os.environ)
        except SandboxError as error:
            raise click.UsageError(str(error), ctx=ctx) from error
    models, problems = _models(settings, cpus, ctx)
    # What is exported here says nothing of another machine.
    exported = os.environ if root == Path("/") else {}
    pools, planned = plan_start(models, settings, planner, exported)
    planned = replace(planned, warnings=(*problems, *planned.warnings))
    if as_json:
        names = {pool.name: [model.name for model in pool.models] for pool in pools}
        click.echo(describe.as_json(planned, planner.budget, names))
    else:
        click.echo(describe.describe(planned, planner.budget, explain=explain))
    return 0


def _models(
    settings: Settings, cpus: int | None, ctx: click.Context
) -> tuple[Sequence[FoundModel], Sequence[str]]:
    """What the daemon would start with, and what is wrong with some of it."""
    from predictd.server.config.model_config import ModelConfig
    from predictd.server.repository.models import FoundModel
    from predictd.server.repository.tuning import TunedError
    from predictd.server.repository.watch import look, untuned
    from predictd.server.supervise.selection import at_start, bounded, tuned_results, unservable
    from predictd.server.supervise.state_file import Loads

    if not settings.paths:
        return [FoundModel("model", (), ModelConfig())], []
    for path in settings.paths:
        try:
            path.stat()
        except OSError as error:
            raise click.UsageError(f"{path}: {str(error.strerror).lower()}", ctx=ctx) from error
    try:
        tune = untuned if cpus is None else tuned_results(settings, os.environ, cpus).apply
    except TunedError as error:
        raise click.UsageError(f"tuned: {error}", ctx=ctx) from error
    arrange = bounded(settings, tune)
    sight = look(settings.paths, tune=arrange)
    why_not = unservable(settings, sight.scan)
    if why_not:
        raise click.UsageError(why_not, ctx=ctx)
    problems = [str(problem) for problem in (*sight.scan.problems, *sight.scan.warnings)]
    return at_start(settings, sight, Loads(), arrange).sight.scan.models, problems
