from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from predictd.server.cli.main import main
from predictd.server.config.settings import options
from tests.fixtures.machines import MACHINES, PLANS
from tests.fixtures.sysfs import FakeSystem


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for option in options():
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["predictd", "plan", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def model(folder: Path, name: str, settings: str = "") -> None:
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "1" / "model.onnx").touch()
    (folder / name / "model.toml").write_text(settings)


def test_without_a_path_it_plans_one_model_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pools"].keys() == {"model"}
    assert document["budget"]["usable_cpus"] <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("name", ["hybrid-8p16e", "quota-2.5-nested", "two-sockets-56c"])
def test_it_plans_for_the_machine_below_another_root(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    MACHINES[name].write(FakeSystem(folder))
    model(folder / "models", "m")
    assert plan(monkeypatch, folder / "models", "--root", folder, "--explain") == 0
    assert capsys.readouterr().out == (PLANS / f"{name}.default.txt").read_text()


def test_flags_and_files_are_named_where_they_decide(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    MACHINES["desktop-8c16t-adjacent"].write(FakeSystem(folder))
    model(folder / "models", "a", "cpu_weight = 300\nthreads = 2\n")
    model(folder / "models", "b")
    where = (folder / "models", "--root", folder, "--frontends", "2", "--instances", "2", "--explain")
    assert plan(monkeypatch, *where) == 0
    out = capsys.readouterr().out
    assert "  front ends: 2, as --frontends says\n" in out
    assert "  workers: 2, as --instances says\n" in out
    assert f"  threads: 2, as {folder}/models/a/model.toml:2 says\n" in out
    assert f"a 6 (weight 300, {folder}/models/a/model.toml:1), b 2 (weight 100, the default)\n" in out


def test_what_carries_the_connections_may_be_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(monkeypatch, "--frontend", "grpcio") == 0
    assert "  connections: by grpcio, as frontend says\n" in capsys.readouterr().out
    assert plan(monkeypatch, "--frontend", "C") == 2


def test_the_models_of_a_shared_pool_stand_in_the_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        model(folder / "models", name)
    assert plan(monkeypatch, folder / "models", "--pools", "shared", "--json") == 0
    assert json.loads(capsys.readouterr().out)["pools"]["shared"]["models"] == ["a", "b"]


def test_what_is_wrong_with_a_model_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model(folder / "models", "a")
    model(folder / "models", "b", "cpu_weight = 0\n")
    assert plan(monkeypatch, folder / "models") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"warning: {folder}/models/b/model.toml:1: cpu_weight: 0 is too small")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "predictd plan: nowhere: no such file or directory"),
        ((".",), "predictd plan: there is no model to serve in ."),
        (("--root", "."), "predictd plan: .: no CPUs in proc/self/status (Cpus_allowed_list) nor in"),
        (("--json", "--explain"), "predictd plan: --json has all reasons already"),
        (("--threads", "0"), "predictd plan: --threads: 0 is too small"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert plan(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
