"""`predictd tune`: find the settings that suit a model on this machine, by measuring."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from predictd.server.cli.options import settings_from
from predictd.server.cli.parameters import duration
from predictd.server.config.model_file import read_setting
from predictd.server.config.tuned import TUNABLE, TunedValue, key_of
from predictd.server.config.units import suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEYS = {key_of(name): name for name in TUNABLE}
_MOST_CALLERS = 1024


def _only(
    _ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> dict[str, tuple[TunedValue, ...]]:
    only: dict[str, tuple[TunedValue, ...]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if key not in _KEYS:
            known = ", ".join(_KEYS)
            raise click.BadParameter(f"{key!r} cannot be tuned; {known} can{suggestion(key, _KEYS)}")
        try:
            only[_KEYS[key]] = (
                tuple(read_setting(_KEYS[key], value) for value in values.split(",")) if equals else ()
            )
        except ValueError as error:
            raise click.BadParameter(f"{key}: {error}") from error
    return only


@click.command
@click.argument("model", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--latency-slo",
    "slo_ns",
    metavar="DURATION",
    callback=duration,
    help="Find the most answers a second of which 99% come within this; without it, the most answers a second.",
)
@click.option(
    "--for",
    "budget_ns",
    metavar="DURATION",
    default="2m",
    show_default=True,
    callback=duration,
    help="How long it may take. Large models, and small differences, need more.",
)
@click.option(
    "--input",
    "input_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.npz",
    help="A recorded request, one array an input. Without it the model's warm-up file, else numbers made up.",
)
@click.option(
    "--callers",
    type=click.IntRange(1, _MOST_CALLERS),
    default=64,
    show_default=True,
    help="How many callers there are at once, at most; each waits for its answer before it asks again.",
)
@click.option(
    "--try",
    "only",
    multiple=True,
    metavar="KEY[=VALUE,...]",
    callback=_only,
    help=f"Try only this setting, and only these values of it. May be repeated. Settings: {', '.join(_KEYS)}.",
)
@click.option("--write", is_flag=True, help="Put the result into the model's own file, as its table [tuned].")
@click.option(
    "--cache-dir", metavar="DIR", help="Keep the result here; the default is that of predictd serve."
)
def tune(
    *,
    model: Path,
    slo_ns: int | None,
    budget_ns: int,
    input_file: Path | None,
    callers: int,
    only: dict[str, tuple[TunedValue, ...]],
    write: bool,
    cache_dir: str | None,
) -> int:
    """Find the settings that suit MODEL on this machine, by measuring it.

    MODEL is a model's file or folder. It is served with one candidate's settings after the other, under load.
    What the model's own file says, the environment and predictd.toml stay as they are. The result is kept in
    the cache, where predictd serve finds it. Control-C ends the search, and keeps the best so far.
    """
    if sys.platform != "linux":
        raise click.ClickException("the daemon is for Linux; predictd.client works here")
    settings = settings_from({"cache_dir": cache_dir})
    # Only now: the help must not wait for NumPy.
    from predictd.server.tune.callers import SubjectError
    from predictd.server.tune.model_toml import WriteError
    from predictd.server.tune.tuning import Wish
    from predictd.server.tune.tuning import tune as run

    wish = Wish(model, budget_ns / 1e9, slo_ns, callers, input_file, only, write)
    try:
        return run(wish, settings, click.echo)
    except (SubjectError, WriteError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {str(error.strerror).lower()}") from error
