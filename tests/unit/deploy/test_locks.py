"""The locks of what is installed hold what pyproject.toml asks for, in the versions that are tested."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.fixtures.daemon import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
NATIVE = tomllib.loads((REPOSITORY / "server" / "native" / "pyproject.toml").read_text())
_ENTRY = re.compile(r"^([a-z0-9-]+)==(\S+)((?: ; .*?)?) \\\n((?:    --hash=.*\n?)+)", re.MULTILINE)


def entries(name: str) -> set[tuple[str, ...]]:
    """What a lock holds: name, version, hashes. Markers follow from what is asked for, and differ."""
    found = _ENTRY.findall((REPOSITORY / name).read_text())
    return {(package, version, hashes.strip()) for package, version, _, hashes in found}


def asked(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", text)[0].lower().replace("_", "-") for text in requirements}


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        (
            "requirements-daemon.lock",
            [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["demo"]],
        ),
        (
            "requirements-build.lock",
            [*PROJECT["build-system"]["requires"], *PROJECT["dependency-groups"]["native"]],
        ),
    ],
)
def test_the_lock_has_all_that_is_asked_for_as_it_is_tested(lock: str, requirements: list[str]) -> None:
    locked = entries(lock)
    assert locked <= entries("requirements.lock"), "run: make locks"
    assert asked(requirements) - {name for name, *_ in locked} == {"predictd-client"} & asked(requirements), (
        "run: make locks"
    )


def test_what_builds_is_what_the_projects_say() -> None:
    groups = PROJECT["dependency-groups"]
    assert sorted(groups["build"]) == sorted(PROJECT["build-system"]["requires"])
    assert {"include-group": "build"} in groups["dev"]
    # pip brings ninja where the machine has none.
    assert {*NATIVE["build-system"]["requires"]} == {
        text for text in groups["native"] if not text.startswith("ninja")
    }
    assert {"include-group": "native"} in groups["dev"]


def test_the_extra_names_the_version_that_lies_here() -> None:
    """Only that one is known to fit: the interface between its C and our Python belongs to neither alone."""
    native = NATIVE["project"]
    assert PROJECT["project"]["optional-dependencies"]["native"] == [f"{native['name']}=={native['version']}"]
    assert native["version"] == PROJECT["project"]["version"]
    meson = (REPOSITORY / "server" / "native" / "meson.build").read_text()
    assert f"version: '{native['version']}'," in meson
    assert native["requires-python"] == PROJECT["project"]["requires-python"]


@pytest.mark.parametrize("group", ["audit", "wheel"])
def test_the_lock_of_a_tool_has_what_is_asked_for(group: str) -> None:
    names = {name for name, *_ in entries(f"requirements-{group}.lock")}
    assert asked(PROJECT["dependency-groups"][group]) <= names, "run: make locks"
