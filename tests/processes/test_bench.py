"""`predictd bench` against a real daemon, with each API."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from predictd.server.bench.report import read
from tests.fixtures import models
from tests.fixtures.daemon import COMMAND
from tests.fixtures.processes import serving

SHORT = ("--for", "200ms", "--warm-up", "50ms")


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=100)


def found(*arguments: object) -> dict[str, Any]:
    done = bench(*arguments, *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    for point in result["points"]:
        assert point["errors"] == {}
        assert point["unanswered"] == 0
        assert point["answers"] > 0
        assert point["per_second_low"] <= point["per_second"] <= point["per_second_high"]
        assert 0 < point["quantiles"]["p50"]["seconds"] <= point["max_seconds"]
    return result


def complaint(*arguments: object) -> str:
    done = bench(*arguments)
    assert done.returncode in (1, 2), done.stderr
    assert done.stdout == ""
    return done.stderr.strip()


def test_a_bench_of_a_daemon(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    models.mlp(repository / "mlp.onnx")
    models.mlp(repository / "other.onnx")
    with serving(repository, folder=tmp_path / "daemon") as daemon:
        at = ("--grpc", daemon.grpc)
        page = tmp_path / "page.html"
        result = found(
            *("mlp", "other", *at, "--http", daemon.http, "--concurrency", "2,8", "--processes", 2),
            *("--shape", "x:Nx64", "--html", page),
        )
        assert [(point["callers"], point["rate"]) for point in result["points"]] == [(2, 0), (8, 0)]
        for point in result["points"]:
            # Both get the same number of requests, up to those under way.
            one, other = (model["answers"] for model in point["models"])
            assert one + other == point["answers"]
            assert point["batches"]["rows"] >= point["answers"]
            assert sum(point["batches"]["by_rows"].values()) == point["batches"]["runs"] > 0
        text = page.read_text()
        assert text.count("<svg") == 3
        assert "http" not in text.replace(f"{daemon.grpc}", "")
        assert "prefers-color-scheme: dark" in text

        inputs = tmp_path / "inputs"
        inputs.mkdir()
        np.savez(inputs / "a.npz", x=np.ones((3, 64), np.float32))
        np.save(inputs / "b.npy", np.ones((1, 64), np.float32))
        for api, more in (("oip", ()), ("tfs", ()), ("predictd", ("--stream",))):
            result = found("mlp", *at, "--api", api, *more, "--concurrency", 4, "--inputs", inputs)
            assert (result["api"], result["streams"]) == (api, bool(more))

        result = found("mlp", *at, "--rate", "50,100", "--arrivals", "constant", "--deadline", "30s")
        assert [point["rate"] for point in result["points"]] == [50, 100]
        # More than are due cannot be sent, and none is left out.
        for point in result["points"]:
            assert point["answers"] <= point["rate"] * point["seconds"] * 3

        kept = tmp_path / "kept.json"
        kept.write_text(json.dumps(result))
        assert read(kept).points[1].label == "100/s"
        compared = bench("--compare", kept, kept)
        assert compared.returncode == 0, compared.stderr
        assert compared.stdout.count("the same") >= 2
        assert "B is" in compared.stdout

        assert complaint("nobody", *at).startswith(f"predictd: {daemon.grpc}, model 'nobody': NOT_FOUND")
    assert "UNAVAILABLE" in complaint("mlp", *at)
