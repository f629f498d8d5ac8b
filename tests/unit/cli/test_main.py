from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import click
import pytest

from predictd.server import cli
from predictd.server.cli.main import COMMANDS, main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["predictd", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_without_arguments_it_shows_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and text in shown for name, text in COMMANDS.items())


def test_the_version_is_the_distribution_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("predictd, version ")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_in_the_table_is_there(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, name, "--help") == 0
    assert capsys.readouterr().out.startswith(f"Usage: predictd {name} [OPTIONS]")


@pytest.mark.parametrize("name", [(), ("predict",)])
def test_the_short_option_is_known_everywhere(name: tuple[str, ...]) -> None:
    """In a process of its own: click remembers of a command by which option it was first asked for help."""
    command = [sys.executable, "-m", "predictd.server.cli.main", *name, "-h"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: predictd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serv",), "predictd: No such command"),
        (("--verbose",), "predictd: No such option"),
        (("serve", "x", "--thread"), "predictd serve: No such option"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(message)


def test_the_command_line_starts_without_heavy_imports() -> None:
    heavy = ("grpc", "onnxruntime", "numpy", "predictd.server.supervise.daemon", "importlib.metadata")
    script = (
        "import sys\nsys.argv = ['predictd', 'serve', '--help']\n"
        "from predictd.server.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--max-delay" in done.stdout
    assert done.stderr == "[]\n"


def test_every_module_that_has_a_command_of_its_name_is_reachable() -> None:
    names = [module.name for module in pkgutil.iter_modules(cli.__path__)]
    modules = {name: importlib.import_module(f"{cli.__name__}.{name}") for name in names}
    commands = {
        name for name, module in modules.items() if isinstance(getattr(module, name, None), click.Command)
    }
    assert commands - {"main"} == set(COMMANDS)
