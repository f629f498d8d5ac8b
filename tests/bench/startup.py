"""From exec to ready with a small model, and the memory that the idle daemon takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import proc
from tests.bench.daemon import Daemon
from tests.bench.table import Report, Spread, Table
from tests.fixtures.models import mlp

if TYPE_CHECKING:
    from tests.bench.settings import Settings


def run(settings: Settings) -> Report:
    """Start and stop a few times."""
    model = mlp(settings.folder / "mlp.onnx")
    seconds: list[float] = []
    processes = 0
    pss_mib: list[float] = []
    for _ in range(settings.profile.starts):
        with Daemon(model, settings.folder, settings.daemon_arguments) as daemon:
            seconds.append(daemon.ready_seconds)
            pids = [pid for role in daemon.roles().values() for pid in role]
            processes = len(pids)
            pss_mib.append(proc.memory_of(pids).pss_bytes / 2**20)
    row = (
        "tiny MLP",
        Spread.of(seconds).text(2),
        str(processes),
        Spread.of(pss_mib).text(0),
    )
    header = ("", "exec to ready s", "processes", "PSS MiB when ready")
    return Report(tables=[Table("Start", header, [row])])
