from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from predictd.server.cli.demo import demo, example_file, instructions, own_command
from predictd.server.cli.magika_package import model_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from predictd.server.config.settings import Settings

LAZINESS = """
import sys
import predictd.server.cli.demo
print(*{"grpc", "numpy", "onnxruntime", "magika", "google.protobuf"}.intersection(sys.modules))
"""


class FakeDaemon(ModuleType):
    """Stands for predictd.server.supervise.daemon: is ready at once, then ends with code 7."""

    def __init__(self) -> None:
        super().__init__("predictd.server.supervise.daemon")
        self.settings: Settings | None = None
        self.served: list[Path] = []

    def run(self, settings: Settings, on_ready: Callable[[dict[str, str]], None]) -> int:
        self.settings = settings
        self.served = [path.resolve() for path in settings.paths]
        on_ready({"grpc": str(settings.grpc), "http": str(settings.http)})
        return 7


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDaemon:
    fake = FakeDaemon()
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.chdir(tmp_path)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(demo, arguments, standalone_mode=False)


def test_the_demo_serves_the_model_of_magika_under_its_name(daemon: FakeDaemon) -> None:
    result = run()
    assert result.return_value == 7
    assert daemon.settings is not None
    (path,) = daemon.settings.paths
    assert path.name == "magika.onnx"
    assert daemon.served == [model_file().resolve()]
    assert not path.parent.exists()


def test_the_demo_says_what_to_type_once_ready(daemon: FakeDaemon) -> None:
    (Path.cwd() / "README.md").touch()
    output = run("--grpc", "127.0.0.1:4001", "--http", "127.0.0.1:4002").output
    assert daemon.settings is not None
    assert "predictd identify README.md --grpc 127.0.0.1:4001\n" in output
    assert "predictd models --grpc 127.0.0.1:4001\n" in output
    assert "curl http://127.0.0.1:4002/metrics\n" in output


def test_at_the_default_address_no_option_is_needed() -> None:
    text = instructions("predictd", "127.0.0.1:8001", "127.0.0.1:8002", "a b.txt")
    assert "    predictd identify 'a b.txt'\n" in text
    assert "--grpc" not in text


def test_ipv6_addresses_are_quoted_for_the_shell() -> None:
    text = instructions("predictd", "[::1]:8001", "[::1]:8002", "x")
    assert "    predictd identify x --grpc '[::1]:8001'\n" in text
    assert "    curl 'http://[::1]:8002/metrics'\n" in text


def test_the_example_is_the_readme_or_else_a_file_that_exists(tmp_path: Path) -> None:
    assert Path(example_file(tmp_path)).is_file()
    (tmp_path / "README.md").touch()
    assert example_file(tmp_path) == "README.md"


def test_the_command_is_this_installation_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here/bin", tmp_path / "there/bin"
    for folder in (here, there):
        folder.mkdir(parents=True)
        (folder / "predictd").touch(mode=0o755)
    script = here / "predictd"
    monkeypatch.setenv("PATH", os.fspath(there))
    assert own_command(script, Path("/")) == os.fspath(script).removeprefix("/")
    assert own_command(script, tmp_path / "here") == "bin/predictd"
    assert own_command(script, tmp_path / "there") == os.fspath(script)
    monkeypatch.setenv("PATH", os.fspath(here))
    assert own_command(script, tmp_path / "there") == "predictd"
    assert own_command(tmp_path / "none", tmp_path / "there") == "predictd"


def test_a_wrong_address_is_wrong_usage(daemon: FakeDaemon) -> None:
    result = CliRunner().invoke(demo, ["--grpc", "nonsense"])
    assert result.exit_code == 2
    assert "--grpc" in result.stderr
    assert daemon.settings is None


def test_without_magika_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = CliRunner().invoke(demo, [])
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: the demo needs Magika's model: pip install 'predictd[demo]'\n",
    )


def test_the_supervisor_to_be_loads_no_tensor_library_and_no_grpc() -> None:
    ran = subprocess.run([sys.executable, "-c", LAZINESS], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
