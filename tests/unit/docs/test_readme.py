"""The README's examples are run against a daemon and must print what stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.fixtures.daemon import COMMAND, Daemon, running

ADDRESS = "127.0.0.1:8001"
BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```$", (Path(__file__).parents[3] / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
# A program is followed by what it prints; the first one writes the model.
MODEL, *PROGRAMS = [at for at, (language, _) in enumerate(BLOCKS) if language == "python"]
TRANSCRIPTS = [text for language, text in BLOCKS if language == "console"]
COMMANDS = [
    (command, printed)
    for text in TRANSCRIPTS
    for command, printed in re.findall(r"^\$ \.venv/bin/predictd (.*)\n((?:[^$].*\n)*)", text, re.MULTILINE)
    if command.split()[0] in ("models", "predict")
]
_TIMES = re.compile(r"\d\S* (?:us|ms|s)\b")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("readme")
    assert run([sys.executable, "-c", BLOCKS[MODEL][1]], folder) == ""
    with running(folder / "double.onnx", folder=folder) as daemon:
        yield daemon


def run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize("at", PROGRAMS)
def test_a_program_prints_what_stands_below_it(at: int, daemon: Daemon, tmp_path: Path) -> None:
    program = BLOCKS[at][1].replace(ADDRESS, daemon.grpc)
    assert run([sys.executable, "-c", program], tmp_path) == BLOCKS[at + 1][1]


@pytest.mark.parametrize(("command", "printed"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_what_stands_below_it(
    command: str, printed: str, daemon: Daemon, tmp_path: Path
) -> None:
    output = run([*COMMAND, *shlex.split(command)], tmp_path, {"PREDICTD_GRPC": daemon.grpc})
    assert _TIMES.sub("…", output) == _TIMES.sub("…", printed)


def test_there_are_examples() -> None:
    assert (len(PROGRAMS), len(COMMANDS)) == (2, 3)
