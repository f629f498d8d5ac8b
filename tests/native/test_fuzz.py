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

from tests.native.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    frame,
    header_block,
    message,
)

NATIVE = Path(__file__).parents[2] / "server/native"
SECONDS = int(os.environ.get("PREDICTD_FUZZ_SECONDS", "600"))
LIBRARIES = ("-lnghttp2", "-lssl", "-lcrypto", "-pthread", "-lm")
# Whose behaviour each fuzzer makes up, and who uses Python.
MADE_UP = {"http2": "inference", "protobuf": "connections", "completions": "connections"}
PYTHON = {"module.c", "orders.c"}
METHODS = [
    "/predictd.v1.PredictionService/Predict",
    "/predictd.v1.PredictionService/PredictStream",
    "/inference.GRPCInferenceService/ModelInfer",
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/x.Y/Z",
]


def sources(group: str) -> list[Path]:
    """The files of a group, as the build has them."""
    text = (NATIVE / "meson.build").read_text()
    listed = text.partition(f"{group} = files(")[2].partition(")")[0]
    return [NATIVE / name.strip(" ',") for name in listed.split("\n") if name.strip()]


def build(target: str, folder: Path) -> Path:
    """A fuzzer."""
    group = ({"connections", "inference"} - {MADE_UP[target]}).pop()
    files = [NATIVE / f"fuzz/{target}.c", *sources(group)]
    if group == "inference":
        files += [NATIVE / "fuzz/no_net.c", NATIVE / "src/bytes.c"]
    fuzzer = folder / target
    subprocess.run(
        [
            *("clang", "-g", "-O1", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
            *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"),
            *("-iquote", str(NATIVE / "src"), *map(str, files), "-o", str(fuzzer), *LIBRARIES),
        ],
        check=True,
    )
    return fuzzer


def conversations() -> list[bytes]:
    """What clients say that mean well, more or less."""
    said = []
    for path in METHODS:
        begin = [
            frame(HEADERS, END_HEADERS, stream, header_block(path=path, grpc_timeout="10m"))
            for stream in (1, 3)
        ]
        said += [
            begin[0] + frame(DATA, END_STREAM, 1, message(b"hello" * 20)),
            begin[0]
            + frame(DATA, 0, 1, message(b"hello") * 3 + message(b"x" * 300)[:50])
            + begin[1]
            + frame(RST_STREAM, 0, 1, bytes(4))
            + frame(DATA, END_STREAM, 3),
            begin[0]
            + frame(DATA, 0, 1, b"\1\0\0\0\5abc")
            + frame(PING, 0, 0, bytes(8))
            + frame(WINDOW_UPDATE, 0, 1, b"\0\0\1\0")
            + frame(DATA, END_STREAM, 1, b"de"),
            begin[0]
            + frame(DATA, END_STREAM, 1, b"\0\0\1\0\0" + b"z" * 3000)
            + frame(GOAWAY, 0, 0, bytes(8)),
        ]
    choices = [bytes(range(16)), b"\3" * 16, bytes([7, 11, 13, 3] * 4)]
    return [chosen + data for chosen in choices for data in said]


@pytest.mark.soak
@pytest.mark.timeout(2 * SECONDS + 300)
@pytest.mark.parametrize("target", MADE_UP)
def test_nothing_that_comes_breaks_it(target: str, tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("clang, which has libFuzzer, is not installed: apt-get install clang")
    fuzzer = build(target, tmp_path)
    corpora = [tmp_path / "found", tmp_path / "seeds"]
    for corpus in corpora:
        corpus.mkdir()
    if target == "http2":
        for number, data in enumerate(conversations()):
            (corpora[1] / str(number)).write_bytes(data)
    kept = NATIVE / "fuzz/corpus" / target
    if kept.is_dir():
        corpora.append(kept)
    limits = (f"-max_total_time={SECONDS}", "-max_len=4096", "-timeout=20")
    ended = subprocess.run(
        [fuzzer, *limits, *corpora], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-8000:]
