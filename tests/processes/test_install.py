"""`make install` into a clean root, what it puts there, a daemon that runs from there, and `make uninstall`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictd.server.config.template import template
from tests.fixtures import models
from tests.fixtures.daemon import REPOSITORY, running
from tests.fixtures.processes import assert_tidy

# It downloads what the locks name. CI runs it: make soak ARGS=tests/processes/test_install.py
pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


def make(target: str, prefix: Path, destdir: Path | str = "") -> None:
    done = subprocess.run(
        (
            "make",
            "--silent",
            target,
            f"PREFIX={prefix}",
            f"SYSCONFDIR={prefix / 'etc'}",
            f"DESTDIR={destdir}",
        ),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(name="installed", scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """What was installed for a prefix, in a root of its own (DESTDIR), and then moved to that prefix."""
    folder = tmp_path_factory.mktemp("install")
    prefix, root = folder / "prefix", folder / "root"
    make("install", prefix, root)
    staged = root / prefix.relative_to("/")
    assert [path.name for path in root.iterdir()] == [prefix.parts[1]]
    staged.rename(prefix)
    yield prefix, root
    make("uninstall", prefix)
    left = [str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()]
    assert left == ["etc/predictd/predictd.toml"]


def test_everything_names_the_prefix_and_nothing_the_root_or_the_checkout(
    installed: tuple[Path, Path],
) -> None:
    prefix, root = installed
    for unit in ("predictd.service", "predictd@.service"):
        (start,) = re.findall(
            r"^ExecStart=(\S+) serve --config (\S+)$",
            (prefix / "lib/systemd/system" / unit).read_text(),
            re.MULTILINE,
        )
        assert start[0] == str(prefix / "bin" / "predictd")
        assert start[1].startswith(f"{prefix}/etc/predictd/")
    for name in ("sysusers.d", "tmpfiles.d"):
        assert "/var/lib/predictd" in (prefix / "lib" / name / "predictd.conf").read_text()
    for kept in prefix.rglob("*"):
        if kept.is_file() and not kept.is_symlink():
            content = kept.read_bytes()
            assert str(root).encode() not in content, kept
            assert str(REPOSITORY).encode() + b"/" not in content, kept


def test_the_configuration_shows_every_setting(installed: tuple[Path, Path]) -> None:
    text = (installed[0] / "etc" / "predictd" / "predictd.toml").read_text()
    assert text == template({"paths": ["/var/lib/predictd/models"]})


def test_the_daemon_runs_from_there(installed: tuple[Path, Path], tmp_path: Path) -> None:
    prefix, _ = installed
    command = prefix / "bin" / "predictd"
    model = models.affine(tmp_path / "affine.onnx")
    with running(
        model, folder=tmp_path / "run", command=(str(command),), environment={"PYTHONPATH": ""}
    ) as daemon:
        assert all(
            Path(f"/proc/{pid}/exe").samefile(prefix / "lib" / "predictd" / "bin" / "python")
            and f"{prefix}/lib/predictd/lib/" in Path(f"/proc/{pid}/maps").read_text()
            for pid in (daemon.process.pid, *daemon.children())
        )
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        asked = (str(command), "health", "--grpc", daemon.grpc)
        said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True, env=environment)
        assert said.stdout == "SERVING\n"
    assert_tidy(daemon, tmp_path / "run")
