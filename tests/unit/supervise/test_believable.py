"""What is believed of what a worker says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from predictd.server.config.lane import LaneSignature, WireTensor
from predictd.server.config.model_config import TensorConfig
from predictd.server.control.commands import (
    LoadModel,
    Reload,
    ServeList,
    SetLabel,
    SetLogLevel,
    SetSplit,
    UnloadModel,
)
from predictd.server.control.messages import ClaimTable, FrontendCounts, Pong, StatisticsRequest
from predictd.server.observe.deltas import FrontendDelta
from predictd.server.supervise.believable import check_descriptors, check_labels_files, check_sender
from tests.fixtures import frontend


@pytest.mark.parametrize(
    "message",
    [
        SetLabel(seq=1, model="m", label="l", version=1, allow_unready=True),
        SetSplit(seq=1, model="m", split=(), allow_unready=True),
        LoadModel(seq=1, model="m"),
        UnloadModel(seq=1, model="m"),
        Reload(seq=1),
        ServeList(seq=1, models=[]),
        SetLogLevel(seq=1, level="debug"),
        StatisticsRequest(seq=1),
        FrontendCounts(seq=1, delta=FrontendDelta(), in_flight=0, arena_bytes=0, waiting=()),
    ],
)
def test_a_worker_commands_nothing(message: object) -> None:
    with pytest.raises(TypeError, match=f"a worker sent {type(message).__name__}"):
        check_sender(message)  # type: ignore[arg-type]
    check_sender(Pong())


def test_descriptors_that_nobody_asked_for_are_closed() -> None:
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(2)]
    with pytest.raises(TypeError, match="Pong came with 2 descriptors"):
        check_descriptors(Pong(), fds)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    with pytest.raises(TypeError, match="ClaimTable came with 0"):
        check_descriptors(ClaimTable(), [])
    check_descriptors(Pong(), [])


def test_front_ends_read_no_file_that_only_a_worker_names() -> None:
    output = TensorConfig(name="y", labels_file=Path("/m/names.txt"))
    config = frontend.config(outputs=(output,))
    for file, right in (("", True), ("/m/names.txt", True), ("/etc/shadow", False)):
        signature = LaneSignature(
            inputs=(),
            outputs=(WireTensor("y", 1, (-1,), labels_file=file),),
            batches=True,
            max_rows=None,
            engine="",
        )
        if right:
            check_labels_files(signature, config)
            continue
        with pytest.raises(ValueError, match="is no labels file of model"):
            check_labels_files(signature, config)
