"""What ONNX Runtime writes of the time that each node takes, added up."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from predictd.engines.api import LayerTime

_SUFFIX = "_kernel_time"
_RUN = "model_run"


class Trace:
    """A place for the file of one session."""

    def __init__(self) -> None:
        # Removed with this object at the latest.
        self._folder = tempfile.TemporaryDirectory(prefix="predictd-profile-")

    @property
    def prefix(self) -> str:
        """How the path of the file begins."""
        return str(Path(self._folder.name) / "trace")

    def layers(self, skipped_runs: int) -> list[LayerTime]:
        """Read what the session wrote.

        Args:
            skipped_runs: The first so many do not count.
        """
        (path,) = Path(self._folder.name).iterdir()
        return sum_layers(json.loads(path.read_bytes()), skipped_runs)

    def close(self) -> None:
        """Remove the file."""
        self._folder.cleanup()


def sum_layers(events: Iterable[Mapping[str, Any]], skipped_runs: int) -> list[LayerTime]:
    """Add up the events of the nodes, in the order of their first.

    Args:
        events: As the file has them, by the end of their time: that of a run comes behind those of its nodes.
        skipped_runs: The first so many do not count.
    """
    layers: dict[str, LayerTime] = {}
    runs = 0
    for event in events:
        name = str(event.get("name"))
        if event.get("cat") == "Session" and name == _RUN:
            runs += 1
        elif event.get("cat") == "Node" and name.endswith(_SUFFIX) and runs >= skipped_runs:
            args = event["args"]
            # Nodes need not have names of their own.
            key = f"{args.get('node_index')} {name}"
            before = layers.get(key) or LayerTime(
                name.removesuffix(_SUFFIX), str(args.get("op_name")), 0, 0.0
            )
            layers[key] = replace(before, runs=before.runs + 1, seconds=before.seconds + event["dur"] / 1e6)
    return list(layers.values())
