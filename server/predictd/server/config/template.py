"""A predictd.toml that shows every setting: where an operator begins."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence

from predictd.server.config.option import Option
from predictd.server.config.settings import CONFIG_FILE, options

_WIDTH = 100
_HEAD = """\
# Settings of predictd. A line "# key = value" shows what is so anyway; without a value it is not set.
# A flag beats the environment, the environment beats this file. Paths are relative to this file's folder.
"""


def template(values: Mapping[str, str | Sequence[str]]) -> str:
    """The file's text: all settings as comments with their defaults, but for those that it really sets.

    Args:
        values: What it sets, by key.

    Raises:
        ValueError: A file has no such key.
    """
    listed = [option for option in options() if option.in_file]
    unknown = values.keys() - {option.key for option in listed}
    if unknown:
        raise ValueError(f"{CONFIG_FILE} has no key {min(unknown)!r}")
    return _HEAD + "".join(f"\n{_entry(option, values.get(option.key))}" for option in listed)


def _entry(option: Option, value: str | Sequence[str] | None) -> str:
    about = textwrap.wrap(f"{option.help} ({option.kind.metavar})", _WIDTH)
    line = (
        f"# {option.key} = {_default(option)}".rstrip() if value is None else f"{option.key} = {_toml(value)}"
    )
    return "".join(f"{text}\n" for text in [*(f"# {text}" for text in about), line])


def _default(option: Option) -> str:
    default, text = option.default, option.default_text
    if isinstance(default, tuple):
        return _toml(default)
    # What has a unit is written as text, a plain number or a boolean as it is.
    if isinstance(default, int) and text in (str(default), _toml(default)):
        return text
    return "" if default is None and text != "auto" else _toml(text)


def _toml(value: object) -> str:
    # What JSON makes of texts, booleans and lists of texts is TOML, too.
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(template({"paths": sys.argv[1:]} if sys.argv[1:] else {}))
