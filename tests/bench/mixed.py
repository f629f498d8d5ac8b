"""Several models on one daemon, asked in turns: what each of them has of its latency when others compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.bench import subject
from tests.bench.daemon import Daemon
from tests.bench.load import LoadGenerator, LoadResult, Shape
from tests.bench.machine import caveats
from tests.bench.payload import learn_answer, predict_payload
from tests.bench.table import Report, Spread, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.settings import Settings
    from tests.bench.subject import Subject

_REQUESTS = 16
_VERIFY_EVERY = 5
_MOST = Shape(4, 4, _VERIFY_EVERY)
_SHARES = (0.5, 0.8)


def run(settings: Settings) -> Report:
    """Saturate it, then offer parts of that in open loops."""
    folder = settings.folder / "mixed"
    folder.mkdir()
    models = [make(folder) for make in (subject.mlp, subject.minilm)]
    loads = _measure(models, settings)
    rows = [row for name, results in loads.items() for row in _rows(name, results, models)]
    title = f"mixed: {' and '.join(model.name for model in models)} on one daemon, asked in turns"
    head = ("", "model", "answers/s", "p50 ms", "p99 ms")
    return Report(
        tables=[Table(title, head, rows)],
        notes=caveats("mixed", [each for results in loads.values() for each in results]),
    )


def _measure(models: Sequence[Subject], settings: Settings) -> dict[str, list[LoadResult]]:
    one, other = (predict_payload(model, _REQUESTS) for model in models)
    payload = one.in_turns_with(other)
    profile = settings.profile
    folder = models[0].path.parent
    loads: dict[str, list[LoadResult]] = {f"{_MOST.callers} callers": []}
    with (
        Daemon(folder, settings.folder, settings.daemon_arguments) as daemon,
        LoadGenerator("wire", settings.clients, settings.folder) as generator,
    ):
        learn_answer(daemon.target, payload)
        file = payload.save(settings.folder / "mixed.payload")
        roles = daemon.roles()

        def once(shape: Shape) -> LoadResult:
            return generator.run(
                daemon.target, file, shape, profile, roles=lambda: roles, seconds=profile.heavy_seconds
            )

        for _ in range(profile.rounds):
            most = once(_MOST)
            loads[f"{_MOST.callers} callers"].append(most)
            for share in _SHARES:
                shape = Shape(_MOST.connections, 0, _VERIFY_EVERY, share * most.per_second)
                loads.setdefault(f"open loop, {share:.0%}", []).append(once(shape))
    return loads


def _rows(name: str, results: Sequence[LoadResult], models: Sequence[Subject]) -> list[Sequence[str]]:
    found: list[Sequence[str]] = []
    for number, model in enumerate(models):
        mine = [each.indexes % len(models) == number for each in results]
        rates = [float(np.count_nonzero(one)) / each.seconds for one, each in zip(mine, results, strict=True)]
        latencies = np.concatenate([each.latencies_ns[one] for one, each in zip(mine, results, strict=True)])
        percentiles = (f"{float(np.percentile(latencies, each)) / 1e6:.2f}" for each in (50, 99))
        found.append((name, model.name, Spread.of(rates).text(0), *percentiles))
    return found
