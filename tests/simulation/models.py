"""The models of a simulated world: what is in their folder, how they load and how they run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from predictd.engines.api import EngineError
from predictd.server.config.lane import LaneConfig
from predictd.server.config.model_config import ModelConfig
from predictd.server.repository.models import FoundModel, FoundVersion, Scan, served_versions
from predictd.server.repository.watch import Sight, Sighting
from predictd.server.worker.efficiency import Efficiency
from predictd.server.worker.lanes import WarmLane
from predictd.server.worker.runner import LoadedLane
from tests.simulation.engine import SIGNATURE, SimulatedEngine
from tests.simulation.loop import Running
from tests.simulation.process import SIGSEGV
from tests.simulation.schedule import MS
from tests.simulation.strand import Strand
from tests.simulation.worker_process import WorkerProcess

if TYPE_CHECKING:
    from tests.simulation.world import World

LOAD_NS = 3 * MS


class Models:
    """The folder, and what workers make of it.

    Attributes:
        sight: What a look at the folder finds now.
        lanes: All that were ever loaded.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.lanes: dict[int, LaneConfig] = {}
        self.sight = self.see("a", (1,))

    def see(self, content: str, versions: Sequence[int]) -> Sight:
        """What a look at the folder finds."""
        schedule = self._world.schedule
        config = ModelConfig(pool="pool" if schedule.shared else None, instances=schedule.workers)
        models = tuple(
            FoundModel(
                f"m{number}",
                tuple(
                    FoundVersion(version, Path(f"/models/m{number}/{version}/{content}.onnx"))
                    for version in sorted(versions, reverse=True)
                ),
                config,
            )
            for number in range(1, schedule.models + 1)
        )
        sightings = {
            (model.name, version.version): Sighting(
                model, version, f"{content} {version.version}", quiet=True, broken=""
            )
            for model in models
            for version in served_versions(model)
        }
        return Sight(Scan(models, ()), sightings)

    def swap(self, sight: Sight) -> None:
        """The folder has changed."""
        self.sight = sight
        with Running(self._world.loop):
            self._world.supervisor.keeper.look_now()

    def load_lane(
        self,
        config: LaneConfig,
        cache: object,
        instances: int,
        instance: int,
        cancel: object,
        report: object,
    ) -> WarmLane:
        """Stands for `worker.lanes.load_lane`."""
        del cache, instances, instance, cancel, report
        strand = Strand.current
        assert strand is not None
        self._world.point(strand, "before load")
        self._world.wait(strand, "load", lambda: False, self._world.draw.randrange(LOAD_NS) / 1e9)
        if "broken" in config.path:
            raise EngineError(f"{config.path} is broken")
        self._world.point(strand, "after load")
        self.lanes[config.lane] = config
        engine = SimulatedEngine(config.lane, self, self._closed)
        decided = config.max_delay_ns or config.max_batch_size == 1
        efficiency = None if decided else Efficiency(config.max_batch_size)
        return WarmLane(LoadedLane(config, engine, SIGNATURE, efficiency=efficiency), 0.001, 0.001)

    def _closed(self, lane: int) -> None:
        world = self._world
        assert isinstance(world.current, WorkerProcess)
        assert world.current.worker is not None
        pool = world.current.worker._init.pool
        # What waits for a lane that has moved out follows it.
        if world.leaving or world.moved_out(lane, pool):
            return
        if left := world.client.outstanding(lane, pool):
            world.violated(f"lane {lane} is closed while requests {left} of it are outstanding")

    def run_begins(self, lane: int, numbers: Sequence[int]) -> None:
        assert isinstance(self._world.current, WorkerProcess)
        self._world.trace(f"{self._world.current.title} runs {list(numbers)} in lane {lane}")

    def compute(self) -> None:
        strand = Strand.current
        assert strand is not None
        duration_ns = self._world.draw.randrange(1, 2 * self._world.schedule.compute_ns)
        self._world.point(strand, "in run")
        self._world.wait(strand, "run", lambda: False, duration_ns / 1e9)
        self._world.point(strand, "in run")

    def hang(self) -> None:
        assert Strand.current is not None
        self._world.wait(Strand.current, "hang", lambda: False, None)

    def crash(self) -> None:
        assert isinstance(self._world.current, WorkerProcess)
        self._world.die_here(SIGSEGV)
