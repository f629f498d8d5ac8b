"""What the pages refer to exists: files, flags, make targets, metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import click

from predictd.server.cli.main import COMMANDS, predictd
from predictd.server.config.settings import options
from predictd.server.observe.catalogue import METRICS

ROOT = Path(__file__).parents[3]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
}
FOLDERS = ("server", "engines", "clients", "protos", "deploy", "tests", "docs")
_LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"[A-Za-z_][\w./-]*(?:/|\.(?:py|md|toml|proto|lock))")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_METRIC = re.compile(r"\bpredictd_[a-z_]+_(?:total|seconds|bytes|rows|depth|flight|state|ready|info)\b")
_SERIES = re.compile(r"_(?:bucket|sum|count)\b")
_TARGET = re.compile(r"(?:`|^|\$ )make ([a-z]+)", re.MULTILINE)
# The user's own, and those of other programs.
_THEIR_FILES = {"model.toml", "predictd.toml", "models/", "uv.lock"}
_THEIR_FLAGS = {
    *("--require-hashes", "--no-deps"),
    *("--quick", "--json", "--only", "--rounds", "--clients", "--serve", "--markdown"),
    *("--count", "--first", "--seed"),
    *(
        "--now",
        "--create",
        "--read-only",
        "--cap-drop",
        "--security-opt",
        "--build",
        "--secret",
        "--stop-timeout",
    ),
}


def missing(named: Callable[[str], set[str]], known: set[str]) -> dict[str, set[str]]:
    """What pages name and nobody knows, by page."""
    unknown = {page: named(text) - known for page, text in PAGES.items()}
    return {page: names for page, names in unknown.items() if names}


def test_there_are_pages() -> None:
    assert {"README.md", "docs/design.md"} < PAGES.keys()


def test_links_lead_somewhere() -> None:
    dead = [
        (page, link)
        for page, text in PAGES.items()
        for link in _LINK.findall(text)
        if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert dead == []


def test_files_that_are_named_exist() -> None:
    # A page may leave the beginning of a path out.
    ends = {path[at + 1 :] for path in _tree() for at in (-1, *_slashes(path))}
    named = _CODE.findall
    assert (
        missing(lambda text: {code for code in named(text) if _FILE.fullmatch(code)}, ends | _THEIR_FILES)
        == {}
    )


def test_flags_that_are_named_exist() -> None:
    known = {option.flag for option in options()} | _flags(predictd) | _THEIR_FLAGS
    for command in COMMANDS:
        known |= _flags(predictd.get_command(click.Context(predictd), command))
    assert missing(lambda text: set(_FLAG.findall(text)), known) == {}


def test_metrics_that_are_named_exist() -> None:
    known = {metric.name for metric in METRICS}
    assert missing(lambda text: set(_METRIC.findall(_SERIES.sub("", text))), known) == {}


def test_make_targets_that_are_named_exist() -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert missing(lambda text: set(_TARGET.findall(text)), known) == {}


def _flags(command: click.Command | None) -> set[str]:
    assert command is not None
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def _tree() -> list[str]:
    """All files and folders, with a slash after a folder's name."""
    found = [path for folder in FOLDERS for path in [ROOT / folder, *(ROOT / folder).rglob("*")]]
    found += [path for path in ROOT.iterdir() if path.is_file()]
    return [f"{path.relative_to(ROOT)}{'/' * path.is_dir()}" for path in found]


def _slashes(path: str) -> list[int]:
    return [at for at, character in enumerate(path[:-1]) if character == "/"]
