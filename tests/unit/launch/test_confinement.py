"""What workers are kept from, by what is asked for and what there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from predictd.server.launch.sandbox.confinement import (
    Confinement,
    SandboxRequest,
    Support,
    User,
    confine,
    confinement_from_json,
    missing,
    sandbox_warnings,
)
from predictd.server.launch.sandbox.paths import system_paths

ALL = Support(landlock_abi=6, seccomp=True)
ASKED = SandboxRequest("auto", None, ("/models",), ("/cache",))


def test_a_confinement_is_told_as_it_is() -> None:
    for read in (None, ("/models", "/a b")):
        confinement = Confinement(True, True, True, read, ("/cache",), True)
        assert confinement_from_json(confinement.to_json()) == confinement
    assert confinement_from_json("") is None


def test_all_that_there_is_confines() -> None:
    confinement, reasons = confine(ASKED, ALL, own_engine=False)
    assert confinement == Confinement(False, True, True, ("/models",), ("/cache",), False)
    assert reasons == (
        "sandbox: no new privileges, no core dumps, no network, no tracing, no mounts (seccomp)",
        "sandbox: reads the models and the system, writes the cache and temporary files (Landlock 6)",
    )
    assert sandbox_warnings(ASKED, ALL) == ()


def test_what_is_missing_is_said() -> None:
    confinement, reasons = confine(ASKED, Support(), own_engine=False)
    assert confinement is not None
    assert not confinement.seccomp
    assert not confinement.landlock
    assert "sandbox: the network is open to it, as seccomp is not available here" in reasons
    assert "sandbox: files are open to it as to its user, as Landlock is not available here" in reasons
    (warning,) = sandbox_warnings(ASKED, Support())
    assert "seccomp and Landlock" in warning
    assert missing(ASKED, Support()) == ""
    require = dataclasses.replace(ASKED, mode="require")
    assert missing(require, Support(seccomp=True)) == "Landlock"
    assert missing(require, ALL) == ""


@pytest.mark.parametrize(("mode", "confined"), [("auto", False), ("require", True), ("off", False)])
def test_an_engine_of_the_operator_is_confined_when_that_is_required(mode: str, confined: bool) -> None:
    request = dataclasses.replace(ASKED, mode=mode)
    confinement, _ = confine(request, ALL, own_engine=True)
    assert (confinement is not None) == confined


def test_a_list_of_models_that_names_folders_leaves_reading_free() -> None:
    request = dataclasses.replace(ASKED, unbounded="a models.config names the folders")
    confinement, reasons = confine(request, ALL, own_engine=False)
    assert confinement is not None
    assert confinement.read is None
    assert any("reads everything, as a models.config names the folders" in line for line in reasons)


def test_off_is_off() -> None:
    request = dataclasses.replace(ASKED, mode="off", user=User("nobody", 1, 1))
    assert confine(request, ALL, own_engine=False) == (None, ())
    assert sandbox_warnings(request, Support()) == ()


def test_neither_the_root_nor_the_keys_of_the_system_are_among_its_paths() -> None:
    paths = system_paths({"LD_LIBRARY_PATH": ":/:/opt/x/lib:relative", "PYTHONPATH": "/srv/code"}, gpu=True)
    everything = {*paths.read, *paths.execute, *paths.write}
    assert everything.isdisjoint({"/", "/etc", "/root", "/home", "/var", "/dev", "/tmp/", ""})
    assert {"/opt/x/lib", "/srv/code", "/usr"} <= set(paths.execute)
    assert all(path.startswith("/") for path in everything)


def test_without_a_folder_for_temporary_files_no_other_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An image that is read-only has none, and Python's tempfile would take the present folder, or fail."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("predictd.server.launch.sandbox.paths._TEMPORARY", ("/nowhere",))
    assert not any(path.startswith(str(tmp_path)) for path in system_paths({}, gpu=False).write)
    assert str(tmp_path) in system_paths({"TMPDIR": "/", "TMP": str(tmp_path)}, gpu=False).write
