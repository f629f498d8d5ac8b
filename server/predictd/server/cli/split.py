"""`predictd split`: the requests that name no version, divided among versions."""

from __future__ import annotations

import re

import click

from predictd.server.cli.label import unready_option
from predictd.server.cli.remote import Target, connect, daemon_options, reaching

_SHARE = re.compile(r"([1-9][0-9]{0,17})=([0-9]{1,3})%?")


@click.command
@click.argument("name")
@click.argument("shares", metavar="VERSION=PERCENT...", nargs=-1)
@click.option("--clear", is_flag=True, help="Send all of them to the highest version that is ready again.")
@unready_option
@daemon_options
def split(name: str, shares: tuple[str, ...], *, clear: bool, allow_unready: bool, target: Target) -> None:
    """Divide the requests to the model NAME that name neither version nor label: 3=90 4=10.

    Each request is drawn by itself. A version that is not ready leaves its share to the
    others. The split outlives the daemon if that has a --state-dir.
    """
    if clear == bool(shares):
        raise click.UsageError(
            "give VERSION=PERCENT for each version, or --clear", ctx=click.get_current_context()
        )
    divided = _read(shares)
    with connect(target) as client, reaching(target):
        client.set_split(name, divided, allow_unready=allow_unready)


def _read(shares: tuple[str, ...]) -> dict[int, int]:
    divided: dict[int, int] = {}
    for share in shares:
        found = _SHARE.fullmatch(share)
        if found is None:
            raise click.UsageError(
                f"{share!r} is not VERSION=PERCENT, such as 3=90", ctx=click.get_current_context()
            )
        version, percent = map(int, found.groups())
        if version in divided:
            raise click.UsageError(f"version {version} is named twice", ctx=click.get_current_context())
        divided[version] = percent
    return divided
