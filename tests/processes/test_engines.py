"""Engines beside ONNX Runtime in a real daemon: chosen by file or by name, batched, swapped, within their CPUs."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from predictd.client import NO_RETRIES, Client
from tests.fixtures import models
from tests.fixtures.daemon import Daemon, running
from tests.fixtures.killing import eventually
from tests.fixtures.processes import log
from tests.fixtures.swapping import Tally, age, calling, content

pytest.importorskip("predictd.engines.openvino", reason="openvino is not installed")


def openvino_content(folder: Path, scale: float, name: str = "model") -> Path:
    """`y` = `x` * scale in OpenVINO's two files, finished long ago."""
    onnx = content(folder / "source.onnx", scale)
    path = models.openvino_model(folder / f"{name}.xml", onnx)
    onnx.unlink()
    for file in (path, path.with_suffix(".bin")):
        age(file)
    return path


def assert_within_their_cpus(daemon: Daemon) -> None:
    """No thread of a worker is bound more tightly than its process was, or elsewhere."""
    for pid in daemon.pids("workers"):
        allowed = {
            task.name: line.split()[1]
            for task in Path(f"/proc/{pid}/task").iterdir()
            for line in (task / "status").read_text().splitlines()
            if line.startswith("Cpus_allowed_list:")
        }
        assert set(allowed.values()) == {allowed[str(pid)]}, allowed


async def asked(daemon: Daemon, name: str, scale: float) -> Tally:
    """What several callers of a model saw, who were answered often."""
    async with calling(daemon, name, {1: [scale]}) as tally:
        await eventually(lambda: tally.failures or tally.wrong or tally.answered >= 200, "answers")
        assert_within_their_cpus(daemon)
    tally.assert_all_right()
    return tally


def test_files_find_their_engine_and_callers_share_batches(tmp_path: Path) -> None:
    root, home = tmp_path / "models", tmp_path / "home"
    home.mkdir()
    openvino_content(root, 2.0, "own")
    content(root / "usual.onnx", 3.0)
    for name, engine, scale in (("named", "openvino", 5.0), ("other", "onnxruntime", 7.0)):
        content(root / name / "1" / "model.onnx", scale)
        (root / name / "model.toml").write_text(f'engine = "{engine}"\n')
    folders = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
    arguments = ("--engine", "openvino", "--max-delay", "5ms", "--threads", "2")
    with running(root, *arguments, folder=tmp_path / "run", environment=folders) as daemon:
        with Client(daemon.grpc, retries=NO_RETRIES) as client:
            engines = {model.name: model.versions[0].engine for model in client.models()}
        assert engines == {
            "own": "openvino",
            "usual": "openvino",
            "named": "openvino",
            "other": "onnxruntime",
        }
        for name, scale in (("own", 2.0), ("named", 5.0)):
            tally = asyncio.run(asked(daemon, name, scale))
            assert daemon.metric("predictd_batch_rows_count", model=name) < tally.answered
        said = [event.message for event in log(daemon) if event.level in {"warning", "error"}]
        assert [text for text in said if "as asked" not in text] == []
    # It keeps no id of the machine and no cache that nobody asked for.
    assert list(home.rglob("*")) == []


def test_a_version_of_two_files_is_taken_when_both_are_whole(tmp_path: Path) -> None:
    asyncio.run(swaps_of_two_files(tmp_path))


async def swaps_of_two_files(tmp_path: Path) -> None:
    root, folder = tmp_path / "models", tmp_path / "models" / "m"
    openvino_content(folder / "1", 3.0)
    second = openvino_content(tmp_path / "aside", 5.0)
    with running(root, folder=tmp_path / "run") as daemon:
        async with calling(daemon, "m", {1: [3.0], 2: [5.0, 9.0]}) as tally:
            await tally.sees(1, 3.0)
            (folder / "2").mkdir()
            weights = second.with_suffix(".bin")
            second.rename(folder / "2" / "model.xml")
            complaint = "no model.bin beside it: an OpenVINO model is two files; copy both"
            await eventually(partial(said, daemon, complaint), complaint)
            tally.newest.clear()
            await eventually(lambda: tally.newest, "still answered")
            await tally.sees(1, 3.0)
            weights.rename(folder / "2" / "model.bin")
            await tally.sees(2, 5.0)
            # In place, and only the weights differ.
            third = openvino_content(tmp_path / "aside", 9.0)
            third.with_suffix(".bin").rename(folder / "2" / "model.bin")
            await tally.sees(2, 9.0)
        tally.assert_all_right()


def said(daemon: Daemon, words: str) -> bool:
    return any(words in event.message for event in log(daemon))
