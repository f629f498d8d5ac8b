"""The fuzzers of the C half: what they are made of, and what they begin with."""

from __future__ import annotations

import gzip
import subprocess
import zlib
from pathlib import Path

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
LIBRARIES = ("-lnghttp2", "-lssl", "-lcrypto", "-lz", "-pthread", "-lm")
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


def build(target: str, folder: Path, *, sanitized: bool = True) -> Path:
    """A fuzzer, or what gives it the files that it is called with and no more."""
    group = ({"connections", "inference"} - {MADE_UP[target]}).pop()
    files = [NATIVE / f"fuzz/{target}.c", *sources(group)]
    if group == "inference":
        files += [NATIVE / "fuzz/no_net.c", NATIVE / "src/bytes.c"]
    compiler = ["clang", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]
    if not sanitized:
        compiler = ["cc"]
        files.append(NATIVE / "fuzz/replay.c")
    made = folder / target
    subprocess.run(
        [
            *(*compiler, "-g", "-O1", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
            *("-iquote", str(NATIVE / "src"), *map(str, files), "-o", str(made), *LIBRARIES),
        ],
        check=True,
    )
    return made


def corpora(target: str, folder: Path) -> list[Path]:
    """Folders of what a fuzzer begins with."""
    seeds, kept = folder / "seeds", NATIVE / "fuzz/corpus" / target
    seeds.mkdir()
    if target == "http2":
        for number, data in enumerate(conversations()):
            (seeds / str(number)).write_bytes(data)
    return [seeds, kept]


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
        for encoding, packed in (
            ("gzip", gzip.compress(b"hello" * 20)),
            ("deflate", zlib.compress(bytes(9000))),
        ):
            sent = b"\1" + len(packed).to_bytes(4) + packed
            said.append(
                frame(HEADERS, END_HEADERS, 1, header_block(path=path, grpc_encoding=encoding))
                + frame(DATA, 0, 1, sent + sent[:9])
                + frame(DATA, END_STREAM, 1, sent[9:] + message(b"plain"))
            )
    choices = [bytes(range(16)), b"\3" * 16, bytes([7, 11, 13, 3] * 4)]
    return [chosen + data for chosen in choices for data in said]
