"""What deploy/install puts where, with an environment that is only a stand-in: making a real one takes a while."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.daemon import REPOSITORY

STAND_IN = f"""#!/bin/sh
mkdir -p "$1/bin"
printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' >"$1/bin/python"
chmod +x "$1/bin/python"
"""


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    shutil.copytree(REPOSITORY / "deploy", source / "deploy")
    (source / "deploy" / "make_environment").write_text(STAND_IN)
    return source


def call(source: Path, what: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **variables}
    return subprocess.run(
        (source / "deploy" / "install", what),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def files(root: Path) -> set[str]:
    found = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path.relative_to(root)) for path in found}


INSTALLED = {
    "usr/bin/predictd",
    "usr/lib/predictd/bin/python",
    "usr/lib/predictd/share/predictd.service.d/gpu.conf",
    "usr/lib/predictd/share/predictd.service.d/jit.conf",
    "usr/lib/systemd/system/predictd.service",
    "usr/lib/systemd/system/predictd@.service",
    "usr/lib/sysusers.d/predictd.conf",
    "usr/lib/tmpfiles.d/predictd.conf",
}


def test_settings_survive_another_installation_and_the_end_of_all(source: Path, tmp_path: Path) -> None:
    root, settings = tmp_path / "root", "etc/predictd/predictd.toml"
    variables = {"DESTDIR": str(root), "PREFIX": "/usr"}
    done = call(source, "install", **variables)
    assert done.returncode == 0, done.stderr
    assert files(root) == {*INSTALLED, settings}
    assert (root / "usr/bin/predictd").readlink() == Path("../lib/predictd/bin/predictd")
    start = "ExecStart=/usr/bin/predictd serve --config /etc/predictd/predictd.toml\n"
    assert start in (root / "usr/lib/systemd/system/predictd.service").read_text()

    fresh = (root / settings).read_text()
    (root / settings).write_text('paths = ["mine"]\n')
    assert call(source, "install", **variables).returncode == 0
    assert files(root) == {*INSTALLED, settings, f"{settings}.new"}
    assert (root / settings).read_text() == 'paths = ["mine"]\n'
    assert (root / f"{settings}.new").read_text() == fresh

    assert call(source, "uninstall", **variables).returncode == 0
    assert files(root) == {settings}


@pytest.mark.parametrize("prefix", ["usr", "/with blank", "/a|b"])
def test_a_prefix_that_cannot_be_is_refused(prefix: str, source: Path, tmp_path: Path) -> None:
    done = call(source, "install", DESTDIR=str(tmp_path / "root"), PREFIX=prefix)
    assert done.returncode == 1
    assert done.stderr.startswith("PREFIX ")
    assert not (tmp_path / "root").exists()
