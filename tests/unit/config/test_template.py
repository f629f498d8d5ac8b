"""The configuration file that an installation begins with."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from predictd.server.config.resolve import resolve
from predictd.server.config.settings import Settings, options
from predictd.server.config.template import template

_COMMENTED = re.compile(r"^# ([a-z_]+) =(.*)$", re.MULTILINE)
IN_FILE = [option for option in options() if option.in_file]


def test_every_setting_is_there_as_a_comment_in_the_order_of_the_declaration() -> None:
    assert [key for key, _ in _COMMENTED.findall(template({}))] == [option.key for option in IN_FILE]


def test_all_of_it_is_comment_so_the_defaults_hold(tmp_path: Path) -> None:
    path = tmp_path / "predictd.toml"
    path.write_text(template({}))
    assert all(line.startswith("#") for line in path.read_text().splitlines() if line)
    assert resolve({"config": str(path)}, {}) == replace(Settings(), config=path)


def test_what_is_set_is_no_comment(tmp_path: Path) -> None:
    path = tmp_path / "predictd.toml"
    path.write_text(template({"paths": ["/var/lib/predictd/models", 'an "odd" one'], "grpc": "0.0.0.0:8001"}))
    settings = resolve({"config": str(path)}, {})
    assert settings.paths == (Path("/var/lib/predictd/models"), tmp_path / 'an "odd" one')
    assert str(settings.grpc) == "0.0.0.0:8001"
    assert settings.origins.keys() == {"config", "paths", "grpc"}


def test_a_comment_that_is_taken_away_changes_nothing(tmp_path: Path) -> None:
    lines = _COMMENTED.findall(template({}))
    unset = {key for key, value in lines if not value}
    assert unset == {
        option.key for option in IN_FILE if option.default is None and option.default_text == "none"
    }
    path = tmp_path / "predictd.toml"
    path.write_text("".join(f"{key} ={value}\n" for key, value in lines if value))
    settings = resolve({"config": str(path)}, {})
    assert settings == replace(Settings(), config=path)
    assert settings.origins.keys() - {"config"} == {key for key, _ in lines} - unset


def test_a_key_that_no_file_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"predictd.toml has no key 'config'"):
        template({"config": "elsewhere"})
