"""The C half under valgrind: what is read was written and is still there, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.native.fuzzers import MADE_UP, build, corpora

HERE = Path(__file__).parent
SHORT = (
    "test_calls.py",
    "test_connections.py",
    "test_uploads.py",
    "test_hot.py",
    "test_compressed.py",
    "test_forged_completions.py",
)
OURS = "_native.abi3.so"
# Debian's valgrind brings one for Python; without it only more is read that is not ours.
SUPPRESSIONS = Path("/usr/lib/valgrind/python3.supp")

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="not installed: apt-get install valgrind"),
]


@pytest.mark.parametrize("target", MADE_UP)
def test_what_the_fuzzers_know_is_clean(target: str, tmp_path: Path) -> None:
    replay = build(target, tmp_path, sanitized=False)
    files = sorted(path for corpus in corpora(target, tmp_path) for path in corpus.iterdir())
    assert files
    ended = subprocess.run(
        ["valgrind", "--quiet", "--leak-check=full", "--error-exitcode=9", replay, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-8000:]


def test_the_short_suite_is_clean(tmp_path: Path) -> None:
    found = tmp_path / "found.xml"
    options = ["--xml=yes", f"--xml-file={found}", "--leak-check=full"]
    options += ["--show-leak-kinds=definite", "--num-callers=40"]
    if SUPPRESSIONS.exists():
        options.append(f"--suppressions={SUPPRESSIONS}")
    suite = [sys.executable, "-m", "pytest", "-q", "-m", "not soak", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        ["valgrind", *options, *suite, "--timeout=0", *(HERE / name for name in SHORT)],
        env={**os.environ, "PYTHONMALLOC": "malloc"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    errors = ET.parse(found).getroot().findall("error")
    ours = [error for error in errors if any(OURS in (obj.text or "") for obj in error.iter("obj"))]
    assert not ours, ET.tostring(ours[0], encoding="unicode")
    assert ended.returncode == 0, ended.stdout[-8000:]
