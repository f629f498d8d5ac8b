"""The C half under libFuzzer, with the sanitizers of addresses and undefined behaviour.

The fuzzers run for as many seconds as PREDICTD_FUZZ_SECONDS says. What they found once lies in
server/native/fuzz/corpus.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.fuzzers import MADE_UP, build, corpora

SECONDS = int(os.environ.get("PREDICTD_FUZZ_SECONDS", "600"))


@pytest.mark.soak
@pytest.mark.timeout(2 * SECONDS + 300)
@pytest.mark.parametrize("target", MADE_UP)
def test_nothing_that_comes_breaks_it(target: str, tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("clang, which has libFuzzer, is not installed: apt-get install clang")
    fuzzer = build(target, tmp_path)
    found = tmp_path / "found"
    found.mkdir()
    limits = (f"-max_total_time={SECONDS}", "-max_len=4096", "-timeout=20")
    ended = subprocess.run(
        [fuzzer, *limits, found, *corpora(target, tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-8000:]
