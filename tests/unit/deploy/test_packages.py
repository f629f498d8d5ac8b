"""What the front end in C is built with has to be named wherever somebody installs it."""

from __future__ import annotations

import re

import pytest

from tests.fixtures.daemon import REPOSITORY

PLACES = (
    ".ci/run",
    "deploy/docker/Dockerfile",
    "deploy/docker/Dockerfile.gpu",
    "deploy/make_native_wheel",
    "docs/native.md",
    "server/native/README.md",
)
BUILD = (REPOSITORY / "server/native/meson.build").read_text()


@pytest.mark.parametrize("place", PLACES)
def test_all_packages_of_libraries_are_named(place: str) -> None:
    packages = re.findall(r"not_found_message: 'apt-get install (\S+)'", BUILD)
    assert len(packages) == len(re.findall(r"not_found_message", BUILD)) >= 3
    text = (REPOSITORY / place).read_text()
    assert [package for package in packages if package not in text] == []


def test_what_is_missing_is_found_before_the_build() -> None:
    script = (REPOSITORY / "deploy/make_native_wheel").read_text()
    libraries = re.findall(r"dependency\('(\w+)'.*not_found_message", BUILD)
    looked_for = re.findall(r"pkg-config --exists '?(\w+)", script)
    assert looked_for == libraries
