"""What is believed of what a worker says: a model file may have taken it over."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from predictd.server.config.lane import LaneConfig, LaneSignature
from predictd.server.control.commands import (
    LoadModel,
    Reload,
    ServeList,
    SetLabel,
    SetLogLevel,
    SetSplit,
    UnloadModel,
)
from predictd.server.control.memory import SegmentAdded
from predictd.server.control.message import Message
from predictd.server.control.messages import ClaimTable, FrontendCounts, StatisticsRequest

_OF_FRONTENDS = (
    SetLabel,
    SetSplit,
    SetLogLevel,
    LoadModel,
    UnloadModel,
    Reload,
    ServeList,
    StatisticsRequest,
    FrontendCounts,
)
_DESCRIPTORS: Mapping[type[Message], int] = {SegmentAdded: 1, ClaimTable: 1}


def check_sender(message: Message) -> None:
    """Raise TypeError for what front ends alone have to say: a worker has no say in what is served."""
    if isinstance(message, _OF_FRONTENDS):
        raise TypeError(f"a worker sent {type(message).__name__}")


def check_descriptors(message: Message, fds: Sequence[int]) -> None:
    """Raise TypeError if other descriptors came than those that belong to a message: nobody would close them."""
    if len(fds) != _DESCRIPTORS.get(type(message), 0):
        for fd in fds:
            os.close(fd)
        raise TypeError(f"{type(message).__name__} came with {len(fds)} descriptors")


def check_labels_files(signature: LaneSignature, config: LaneConfig) -> None:
    """Raise ValueError if a signature names a labels file that the model's configuration does not.

    Front ends, which are in no sandbox, read these files and show clients what is in them.
    """
    configured = {str(output.labels_file) for output in config.outputs if output.labels_file}
    for output in signature.outputs:
        if output.labels_file and output.labels_file not in configured:
            raise ValueError(f"{output.labels_file!r} is no labels file of model {config.model!r}")
