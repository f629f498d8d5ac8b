"""The units of systemd: what they say agrees with the code, and systemd finds nothing wrong with them."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from predictd.server.config.settings import Settings
from predictd.server.config.units import parse_duration_ns
from predictd.server.supervise.daemon import EXIT_CONFIG
from predictd.server.supervise.guard import LIMIT_LOOKS, LOOK_SECONDS
from tests.fixtures.daemon import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "systemd"
UNITS = ("predictd.service", "predictd@.service")
DROP_INS = ("jit.conf", "gpu.conf")
EXPOSURE_MAX = 2.0
ANALYZE = shutil.which("systemd-analyze")
analyzed = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze: apt-get install systemd")


def service(path: Path) -> dict[str, list[str]]:
    """The assignments of a unit's [Service] section."""
    section = path.read_text().partition("[Service]\n")[2].partition("\n[")[0]
    assignments: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        assignments.setdefault(name, []).append(value)
    return assignments


def seconds(text: str) -> float:
    return parse_duration_ns(text.replace("min", "m")) / 1e9


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_fits_the_daemon(unit: str) -> None:
    said = {name: values[-1] for name, values in service(FOLDER / unit).items()}
    assert said["Type"] == "notify"
    assert said["KillMode"] == "mixed"
    assert said["RestartPreventExitStatus"] == str(EXIT_CONFIG)
    # The drain is finished before systemd kills; a loop that hangs is found by systemd before by the daemon itself.
    assert seconds(said["TimeoutStopSec"]) > Settings().drain_timeout_ns / 1e9 + 20
    assert seconds(said["WatchdogSec"]) < LIMIT_LOOKS * LOOK_SECONDS
    # Where these folders are is what the daemon is told.
    assert said["Environment"] == f"PREDICTD_STATE_DIR=%S/{said['StateDirectory']}"
    assert said["CacheDirectory"] == "predictd"


def test_both_units_are_alike_but_for_their_names() -> None:
    one, many = (service(FOLDER / unit) for unit in UNITS)
    different = {name for name in one.keys() | many.keys() if one.get(name) != many.get(name)}
    assert different == {
        "Environment",
        "EnvironmentFile",
        "ExecStart",
        "RuntimeDirectory",
        "StateDirectory",
        "WorkingDirectory",
    }
    assert all("%i" in many[name][0] for name in different)


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_a_drop_in_changes_only_what_the_unit_says(drop_in: str) -> None:
    parser = ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string((FOLDER / "predictd.service.d" / drop_in).read_text())
    assert parser.sections() == ["Service"]
    base = service(FOLDER / "predictd.service")
    assert set(parser["Service"]) - base.keys() <= {"DeviceAllow", "LimitMEMLOCK"}


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """A root with the units, and with stand-ins of what they name."""
    units = tmp_path / "usr" / "lib" / "systemd" / "system"
    units.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(FOLDER / unit, units)
    for program in ("usr/local/bin/predictd", "bin/sh"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    for target in ("multi-user", "network-online", "sysinit", "basic", "shutdown"):
        (units / f"{target}.target").write_text("[Unit]\nDescription=A stand-in\n")
    return tmp_path


def analyze(*arguments: str | Path) -> str:
    assert ANALYZE is not None
    done = subprocess.run(
        (ANALYZE, *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@analyzed
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong_with_the_unit(unit: str, root: Path) -> None:
    assert analyze("verify", "--man=no", f"--root={root}", unit) == ""


@analyzed
@pytest.mark.parametrize("drop_ins", [(), ("jit.conf",), DROP_INS])
def test_what_the_unit_may_do_is_little(drop_ins: tuple[str, ...], root: Path) -> None:
    folder = root / "etc" / "systemd" / "system" / "predictd.service.d"
    folder.mkdir(parents=True)
    for drop_in in drop_ins:
        shutil.copy(FOLDER / "predictd.service.d" / drop_in, folder)
    report = analyze("security", "--offline=yes", f"--root={root}", "predictd.service")
    (exposure,) = re.findall(r"Overall exposure level for predictd.service: ([0-9.]+)", report)
    assert float(exposure) <= EXPOSURE_MAX
